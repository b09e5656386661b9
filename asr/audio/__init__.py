"""The room where sound comes in: any file to 16 kHz mono, filterbank features, augmentation.

``files`` reads a recording whole or in parts; ``features`` turns waveforms into log-mel frames, 10 ms apart;
``augmentation`` makes training speech slower, noisier and more distant.
"""
