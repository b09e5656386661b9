"""Sound in: any file to 16 kHz mono, filterbank features, augmentation."""
