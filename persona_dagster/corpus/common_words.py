"""Words that look like an account beside a site's name and are none, so that privacy masks no prose."""

# Words of English and of trade that stand after a site's name and are nobody's account: LINE: voucher, FB (ads).
# Only as whole words: voucher.2020 is an account.
NOT_A_NAME = frozenset(
    """
    about account accounts active ads advertising after again agency album all also analysis announcement any api
    apps art article assembly available avatar avatars award back backup balance band banner bar base basic been
    before best block blog blue book bots box boys brand break browser business button buy camera campaign campaigns
    can cap card cards case cash center change channel channels chart chat chats check client clients close club
    code codes color comic comics comment comments communication community company connect contact content contest
    control cook cool corporation count country coupon coupons cover crew custom customer daily dance data day days
    deal deals default delivery design desktop developer device dialog different digital discount discounts display
    does down download draw drawing drop editor email emoji employee end english error event events ever every
    example fans fashion feature features feed file files find fiction first fit follow followers font for format
    free friend friends from full function gaming get girl girls global good graph green guide guy guys has have
    height hello help here home hot hotline how icon image images info input insight install issue item items japan
    job join just keep key keyboard kids korea language last later level library like likes limit limited link links
    list local login logo long look lot love made mail main make man management manager map market marketing
    marketplace member members membership memo menu message messages messaging method mobile mode model money more
    most movie much name names network never new news newsletter next nice nothing notice notification notifications
    notify now number numbers offer office offline old one only online open openchat order other our own page paid
    paper party password payment people per phone photo photos pic pics platform play player please plot plus
    podcast policy pop post poster posts premium present press preview price prices privacy private product
    production products profile program project promo promotion prompt public push question quick read real red
    refund register report reports request reward rewards sale sales same save scam scan score screen search
    security see seller send series server service services set setting settings share show side sign simple site
    size small social some song sorry source space special square staff stage standard start state status step
    sticker stickers stop stories story strategy stream student style such support survey system table tag talk
    taiwan team tech test text than thank thanks that theirs them theme themes then there these they thing things
    this those ticket tickets time times timeline tips title tool tools top toy trade trial try type under update
    updates use used user users version very via video videos view vip visa voice voom voucher vouchers wallet want
    was watch way web website week welcome well were what when where which while white who why width will windows
    word words work works world would writer year yes you your
    dcard discord facebook google instagram meta momo pixiv plurk ptt shopee telegram threads tiktok twitch twitter
    wechat whatsapp youtube
    """.split()  # noqa: SIM905
)  # fmt: skip
