"""Sentences by templates: what news and everyday talk say with numbers, dates, places, names, commands and Latin letters.

A text corpus has few of them, or has them in digits; a recogniser that never heard 幺 or C P U cannot write them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.resources import files

from asr.exceptions import ConfigurationError

_DIGITS = "零一二三四五六七八九"
_SURNAMES = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文"
_GIVEN = "伟芳娜秀英敏静丽强磊军洋勇艳杰娟涛明超霞平刚桂兰鹏辉玲红梅玉华建国志文宇轩浩然子涵欣怡思雨佳慧晨曦梓萱俊凯振东晓峰海燕雪琴春生永康嘉诚立新少云德胜家豪若琳婷瑞博睿哲诗彤靖琪凌薇航宁"
_ITEMS = {
    "place": "北湖 南山 东城 西关 新华 人民 中山 解放 长安 和平 建设 胜利 光明 朝阳 滨江 湖滨 文化 学府 科技 世纪 星河 金桥 虹口 翠竹 锦绣",
    "spot": "公园 广场 大厦 医院 商城 酒店 小区 花园 体育馆 火车站 地铁站 机场 图书馆 博物馆 电影院 超市 银行 派出所 幼儿园 加油站 停车场",
    "road": "大街 路 大道 东路 西路 南路 北路 中路 胡同 巷",
    "device": "空调 电视 客厅的灯 卧室的灯 窗帘 音箱 洗衣机 加湿器 空气净化器 热水器 电饭煲 扫地机器人 风扇 投影仪 摄像头 蓝牙 无线网络 手电筒",
    "application": "微信 支付宝 淘宝 地图 日历 相机 相册 闹钟 计算器 音乐 天气 邮箱 浏览器 备忘录 新闻 游戏 录音机 词典 股票 导航",
    "dish": "红烧肉 麻婆豆腐 宫保鸡丁 西红柿炒鸡蛋 酸辣土豆丝 清蒸鲈鱼 糖醋排骨 牛肉面 小笼包 羊肉串 绿豆汤 皮蛋瘦肉粥 回锅肉 北京烤鸭 蛋炒饭",
    "technology": "机器学习 深度学习 人工智能 神经网络 语音识别 语音合成 自然语言处理 计算机视觉 强化学习 大数据 云计算 物联网 区块链 机器翻译 "
    "图像识别 知识图谱 注意力机制 编码器 解码器 大模型 自动驾驶 芯片 算法 数据库 操作系统 量子计算 虚拟现实 可穿戴设备 三维打印 无人机 机器人 "
    "智能手机 移动支付 开源软件 服务器 传感器 处理器 显卡 内存 分布式训练 监督学习 迁移学习 推荐系统 搜索引擎 信息安全 数据挖掘 卷积网络",
    "company": "苹果 索尼 微软 谷歌 三星 华为 小米 联想 阿里巴巴 腾讯 百度 京东 万科 恒大 碧桂园 保利 中兴 比亚迪 格力 美的 海尔 乐视 优步 滴滴 "
    "特斯拉 亚马逊 英特尔 高通 中国移动 中国联通 中石油 中石化 工商银行 招商银行 平安保险 茅台 伊利 上汽 大众 丰田",
    "estate": "楼市 房价 地价 二手房 新房 商品房 保障房 土地市场 住宅 写字楼 商铺 公积金 首付 房贷利率 限购政策 棚户区改造 成交面积 库存 签约套数",
    "economy": "股市 沪指 深成指 创业板 基金 债券 期货 黄金 油价 人民币汇率 进出口总额 居民消费价格 工业增加值 固定资产投资 财政收入 净利润 营业收入 "
    "市值 成交额 外汇储备 贷款余额 市场份额 销量 产量 出货量 票房 客流量 用电量",
    "team": "中国队 日本队 韩国队 德国队 巴西队 阿根廷队 西班牙队 意大利队 国安 恒大 申花 鲁能 泰达 曼联 皇马 巴萨 拜仁 火箭 湖人 勇士 骑士 马刺 "
    "中国女排 国乒 北京首钢 广东宏远 辽宁队",
    "sport": "足球 篮球 乒乓球 羽毛球 排球 网球 游泳 跳水 田径 体操 射击 举重 马拉松 花样滑冰 短道速滑 台球 围棋 拳击 自行车",
    "event": "世界杯 奥运会 亚运会 全运会 欧冠 中超 世锦赛 公开赛 友谊赛 资格赛 半决赛 总决赛 揭幕战 预选赛",
    "show": "电影 电视剧 综艺节目 演唱会 新专辑 纪录片 话剧 动画片 首映礼 真人秀 音乐会 微博",
    "kin": "爸爸 妈妈 爷爷 奶奶 哥哥 姐姐 弟弟 妹妹 老师 同事 朋友 邻居 医生 老板 孩子 同学",
    "weather": "晴天 多云 小雨 大雨 暴雨 雷阵雨 小雪 大雪 大风 沙尘暴 雾霾 阴天 台风 寒潮 高温",
    "word": "CPU GPU GDP APP NBA CBA LOGO IP IPO VR AI PC IT LED LTE WIFI CEO CFO MBA KTV ATM PPT USB DNA MV DJ VIP BUG SUV GPS OPPO VIVO TCL LG IBM HTC "
    "CCTV BBC ST PM PPP EPS PMI CPI PPI NBD IOS UI UC QQ POS APEC WTO ICU CT",
    "english": "Python Java Google Facebook Twitter Windows Android Apple iPhone Uber Tesla email hello OK show model data team game fans style online",
}  # fmt: skip
_TEMPLATES = """
设定{degrees}度
把{device}调到{degrees}度
打开{device}
关闭{device}
请把{device}打开
{device}调小一点
打开{application}
帮我打开{application}。
播放{person}的歌
我想听{person}唱的歌
打电话给{person}
给{kin}打电话
给{person}发短信说我{minutes}分钟后到
导航到{place}{spot}
{city}{place}{spot}
{city}{place}{road}{number}号
去{place}{road}怎么走
{place}{road}{number}号{number}楼{room}室
我家住在{city}{place}{road}{number}号
附近有没有{spot}？
从{city}到{city}的火车票多少钱？
帮我订一张{date}去{city}的机票
{weekday}{clock}提醒我开会
明天早上{clock}叫我起床
{minutes}分钟后提醒我关火
{city}明天的天气怎么样？
今天{city}{weather}，气温{degrees}度。
明天有{weather}，出门请带伞。
{weekday}{city}有{weather}，最低气温零下{degrees}度
{digits}
我的电话号码是{phone}
请拨打{phone}
验证码是{code}
车牌号是{letters}{code}
股票代码{code}
现在是{clock}
今天是{date}{weekday}
{year}年{month}月
截至{year}年底
{year}年{economy}同比增长百分之{decimal}
{economy}同比下降{decimal}个百分点
{economy}达到{amount}亿元
{company}{economy}超过{amount}亿美元
{company}股价上涨百分之{decimal}
{economy}收于{amount}点，跌幅百分之{decimal}
{city}{estate}环比上涨百分之{decimal}
{city}{estate}为{amount}万平方米
{estate}成交{amount}套
{year}年{city}{estate}将持续走好
{company}以{amount}万元拿下{city}一宗地块
业内人士认为{estate}将保持平稳
{company}发布了新款{technology}产品
{company}宣布收购{company}部分股权
{company}在{technology}领域投入{amount}亿元
{company}表示将于{month}月推出{technology}
{company}的{word}业务
支持{word}和{technology}
不支持{word}功能
{word}指数为{decimal}
{word}总量突破{amount}万亿元
{company}{word}{person}
{person}是{company}的{word}
{letters}
{word}
用{english}写一个程序
请打开{english}
我的{english}在哪里？
{company}推出了{english}
你好{english}
{technology}
我在学习{technology}
{technology}的发展非常迅速
{technology}正在改变我们的生活
什么是{technology}？
{technology}和{technology}有什么区别？
他是研究{technology}的{kin}
这门课讲的是{technology}
{team}以{score}比{score}战胜{team}
{team}{score}比{score}不敌{team}
{team}在{event}中获得第{rank}名
{person}夺得{sport}{event}冠军
{person}打进第{rank}球
{person}得到{amount}分{score}个篮板{score}次助攻
{city}{sport}{event}将于{date}举行
{sport}还得走进校园
{person}主演的{show}将于{date}上映
{person}和{person}出席{show}
{person}的{show}票房突破{amount}万元
{person}凭借{show}获得最佳{rank}奖
{city}警方抓获{number}名犯罪嫌疑人
{number}名伤者被送往附近医院
事故造成{number}人死亡{number}人受伤
{city}发生{decimal}级地震
{city}{place}{road}发生一起交通事故
据{city}媒体报道
{person}说
{person}告诉记者
{city}市民{person}女士
我想吃{dish}
来一份{dish}和{dish}。
{dish}怎么做？
{kin}今天做了{dish}
一共{amount}元{small}角
这件衣服{amount}块钱太贵了
我要买{small}斤{dish}
我{kin}今年{age}岁了
{kin}在{city}工作了{small}年
我{weekday}要去{city}出差
{kin}昨天去了{place}{spot}
对不起，我听不懂。
你吃饭了吗？
请问{spot}在哪里？
我们{clock}在{spot}见面吧
谢谢你，{kin}。
"""
_SLOT = re.compile(r"\{(\w+)\}")


def templates(number: int, seed: int = 0) -> Iterator[str]:
    """Draw so many sentences; numbers are written as they are spoken, 幺 for the 1 of telephone numbers.

    Raises:
        ConfigurationError: the libraries of the extra ``synthesis`` are not installed.
    """
    generator = random.Random(seed)
    patterns = _TEMPLATES.split("\n")[1:-1]
    items = {slot: words.split() for slot, words in _ITEMS.items()}
    items["city"] = list(_cities())
    for _ in range(number):
        yield _SLOT.sub(lambda match: _fill(match[1], generator, items), generator.choice(patterns))


def _fill(slot: str, generator: random.Random, items: dict[str, list[str]]) -> str:
    return _NUMBERS[slot](generator) if slot in _NUMBERS else generator.choice(items[slot])


def _amount(number: int) -> str:
    from cn2an import an2cn

    return str(an2cn(number, "low"))


def _digits(generator: random.Random, shortest: int, longest: int, telephone: bool = True) -> str:
    spoken = "".join(generator.choice(_DIGITS) for _ in range(generator.randint(shortest, longest)))
    return spoken.replace("一", "幺") if telephone and generator.random() < 0.7 else spoken


def _person(generator: random.Random) -> str:
    return generator.choice(_SURNAMES) + "".join(generator.choice(_GIVEN) for _ in range(generator.choice((1, 2, 2))))


def _large(generator: random.Random) -> str:
    digits = generator.randint(1, 4)
    number = generator.randint(10 ** (digits - 1), 10**digits - 1)
    text = _amount(number)
    # Both are said, the second more often before units.
    return "两" + text[1:] if text[0] == "二" and len(text) > 1 and text[1] in "百千" and generator.random() < 0.5 else text


def _decimal(generator: random.Random) -> str:
    places = "".join(generator.choice(_DIGITS) for _ in range(generator.choice((1, 1, 2))))
    return f"{_amount(generator.randint(0, 60))}点{places}"


def _clock(generator: random.Random) -> str:
    part = generator.choice(("早上", "上午", "中午", "下午", "晚上", "凌晨", ""))
    hour = generator.randint(1, 12)
    minute = generator.choice(("", "半", "一刻", f"{_amount(generator.randint(10, 59))}分"))
    return f"{part}{'两' if hour == 2 else _amount(hour)}点{minute}"


_NUMBERS: dict[str, Callable[[random.Random], str]] = {
    "degrees": lambda r: _amount(r.randint(1, 38)),
    "minutes": lambda r: r.choice("两 三 五 十 十五 二十 三十 四十五".split()),
    "number": lambda r: _amount(r.randint(1, 200)),
    "small": lambda r: r.choice("一两三四五六七八九十"),
    "score": lambda r: _amount(r.randint(0, 12)),
    "rank": lambda r: _amount(r.randint(1, 12)),
    "age": lambda r: _amount(r.randint(3, 90)),
    "room": lambda r: _digits(r, 3, 4),
    "code": lambda r: _digits(r, 4, 6),
    "digits": lambda r: _digits(r, 4, 11),
    "phone": lambda r: ("幺" + r.choice("三五七八") + _digits(r, 9, 9)) if r.random() < 0.6 else _digits(r, 8, 8),
    "amount": _large,
    "decimal": _decimal,
    "clock": _clock,
    "person": _person,
    "weekday": lambda r: r.choice(("星期", "周", "下周")) + r.choice("一二三四五六"),
    "date": lambda r: f"{_amount(r.randint(1, 12))}月{_amount(r.randint(1, 30))}{r.choice('日号')}",
    "month": lambda r: _amount(r.randint(1, 12)),
    "year": lambda r: (r.choice(("二零一", "二零二", "二零零", "一九九")) + r.choice(_DIGITS)),
    "letters": lambda r: "".join(r.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(r.randint(1, 4))),
}


@lru_cache(maxsize=1)
def _cities() -> tuple[str, ...]:
    """Names of places that jieba's dictionary has at least ten times."""
    try:
        dictionary = files("jieba").joinpath("dict.txt").read_text(encoding="utf-8")
    except ImportError as error:
        raise ConfigurationError(f"synthesis needs {error.name}; install the extra with pip install 'asr[synthesis]'.") from error
    rows = (line.split(" ") for line in dictionary.splitlines())
    return tuple(word for word, count, kind in rows if kind == "ns" and int(count) >= 10 and 2 <= len(word) <= 4)
