"""Plots about things and ways that are lost, wanted, broken, grown or traded."""

import props
from grammar import Thing, an, ending, make_elder, make_friend, make_thing, opening, pet


def lost_thing(s):
    """The hero loses a thing, looks for it, and somebody with the right skill gets it back."""
    c = s.cast
    o = c["o"] = make_thing(s)
    hero_can = c["h"].skills
    ways = props.FOUND[o.kind]
    c["where"], deed, skill = s.pick([w for w in ways if w[2] not in hero_can] or ways)
    c["f"] = make_friend(s, c["h"], need=skill)
    c["deed"] = s.fragment(deed)
    s.theme = "lost"
    s.gist = s.pick(
        ["who lost {o.a}", "who lost {h.his} {o.n}", "who lost " + an(o.n), "and {o.a}", "who looked for {h.his} {o.n}"]
    )
    s.title = s.pick(["The Lost {o.n}", "{h.tag} and the {o.full}", "The {h.noun} and the {o.n}"])
    opening(s, day=False)
    s.say(
        "{h.He} had {o.a}. It was {h.his} favorite thing in the world",
        "{h} had {o.a} and took it everywhere",
        "{h.His} [grandma|grandpa|best friend] had given {h.him} {o.a}",
        "{h} loved {h.his} {o.full} very much",
        "For {h.his} birthday, {h} got {o.a}",
    )
    s.para(0.6)
    s.say(
        "One {weather} day, {h} took {o.the} {p.to}",
        "One day, {h} played with {o.the} {p.at}",
        "The next day, {h} took {o.the_full} {p.to}",
        "One {weather} morning, {h} went {p.to} with {o.the_full}",
    )
    s.maybe(0.3, "{sky}")
    s.say(*props.LOSE[o.kind])
    s.say(
        '"Oh no! My {o.n}!" cried {h.the}',
        "{h} was very sad",
        "{h} started to cry",
        '"Where is my {o.n}?" {h} asked',
        "{h.He} looked around, but {o.the} was gone",
    )
    s.para(0.5)
    s.say(
        "{h} looked {spot}. {o.The} was not there. {h.He} looked {spot2}. It was not there either",
        "First, {h} looked {spot}. Then {h.he} looked {spot2}. But there was no {o.n}",
        "{h.He} searched {spot}, but found only [leaves|dust|a sleepy bug|an old shoe]",
        "{h.He} looked {spot} and {spot2}, but {o.the} was nowhere",
    )
    pet(
        s, "{pet.call} looked {spot3}, but {o.the} was not there", "{pet.call} [sniffed|searched] the ground all around"
    )
    s.para(0.6)
    s.say(
        'Then {h} met {f.intro}. "Why are you [sad|crying]?" asked {f}',
        'Just then, {f.intro} came by. "What is wrong?" {f.he} asked',
        '{f.A} saw {h.him} and stopped. "Can I help you?" asked {f.the}',
    )
    s.say(
        '"I lost my {o.full}," said {h}',
        '"My {o.n} is gone," {h} said [sadly|in a small voice]',
        '"I cannot find my {o.n}," said {h}',
    )
    s.say(
        '"I saw it {where}!" said {f}. "Come with me."',
        '"Do not worry," said {f}. "We will look together."',
        '"Let me help you look," said {f}',
    )
    s.say(
        "They went and looked, and there it was, {where}",
        "Soon they saw {o.the_full} {where}",
        "Together they walked and walked. At last they saw {o.the} {where}",
    )
    s.maybe(0.5, "{h} could not [reach|get] it", "But {h} could not get it alone", '"How can we get it?" asked {h}')
    s.say("{f} {deed}", "So {f} {deed}", '"I can do it," said {f}. {f.He} {deed}')
    s.para(0.5)
    s.say(
        '"Thank you!" said {h}. {h.He} hugged {o.the} and smiled',
        '"Thank you so much!" said {h}, and hugged {f.the}',
        '{h} was so happy. "Thank you!" {h.he} said',
        '"You found my {o.n}! Thank you!" said {h}',
    )
    s.maybe(
        0.5, "They [played|had fun] with {o.the} until [evening|the sun went down]", "{h} let {f} play with {o.the} too"
    )
    s.qa += [
        ("What did {h} lose?", "{h.He} lost {o.a}."),
        ("Who found the {o.n}?", "{f.The} found it {where}."),
        ("Where was the {o.n}?", "It was {where}."),
    ]
    ending(s, pair=s.chance(0.7))


def lost_way(s):
    """The hero goes too far, is lost, and follows a sign home."""
    c = s.cast
    c["f"] = make_friend(s, c["h"])
    c["e"] = make_elder(s, c["h"], family=True)
    c["lure"] = s.pick(
        [
            "a blue butterfly",
            "a sweet smell",
            "a strange song",
            "a shining light",
            "a line of ants",
            "a white feather in the wind",
            "a path of small stones",
        ]
    )
    c["sign"], c["follow"] = s.pick(
        [
            ("the evening star", "Follow the evening star"),
            ("the little river", "Follow the little river"),
            ("the sound of the bell", "Follow the sound of the bell"),
            ("the row of white stones", "Follow the white stones"),
            ("the smoke from the chimney", "Follow the smoke from the chimney"),
            ("the setting sun", "Walk to the sun"),
            ("the old stone wall", "Follow the old stone wall"),
            ("the tallest tree", "Walk to the tallest tree"),
        ]
    )
    s.theme = "home"
    s.gist = s.pick(["who got lost", "who lost {h.his} way", "who wanted to go home", "who was lost {p.at}"])
    s.title = s.pick(["The Way Home", "{h.tag} Is Lost", "The Lost {h.noun}"])
    opening(s)
    s.say(
        "{h} noticed {lure} and followed it",
        "Soon {h.he} noticed {lure}. {h.He} went closer, but it was always a little farther away",
        'There {h.he} noticed {lure}. "I want to see where it goes," {h.he} thought',
        "{lure} made {h} curious, and {h.he} went after it",
    )
    s.say(
        "{h.He} went on and on, [past the big trees|over the hill|across a bridge], until nothing looked [familiar|the "
        "same]",
        "Soon {h} was far from home",
        "When {h.he} stopped, {h.he} did not know where {h.he} was",
    )
    s.say(
        "It was getting dark",
        "The sun was going down, and the shadows grew long",
        "The sky turned gray, and a cold wind blew",
    )
    s.para(0.5)
    s.say(
        '"I am lost!" cried {h}. {h.He} sat down and [cried|hugged {h.his} knees]',
        '{h} felt [very small and afraid|scared and alone]. "How will I get home?" {h.he} asked',
        '"Which way is home?" {h} asked, but nobody answered',
    )
    pet(s, "{pet.call} stayed close to {h.him}", "{pet.call} was afraid too")
    s.para(0.5)
    s.say(
        "Then {f.intro} [came out from behind a tree|looked down from a branch|came along the path]"
        if {"climb", "fly"} & set(c["f"].skills)
        else "Then {f.intro} came along the path",
        'A soft voice said, "Hello." It was {f.intro}',
    )
    s.say(
        '"Are you lost?" asked {f}. "Yes," said {h}. "I want to go home."',
        '"Why are you out so late?" asked {f}. "I cannot find my home," {h} said',
        '"Do not be afraid," said {f}. "Where do you live?" "I live {h.home}," said {h}',
    )
    s.say(
        '{f} smiled. "{follow}," {f.he} said. "It will lead you home."',
        '"I know the way," said {f}. "{follow}. I will come with you."',
    )
    s.say(
        "{h} followed {sign}, step by step",
        "So {h} followed {sign}, and {f} walked beside {h.him}",
        "They followed {sign} through the dark",
    )
    s.maybe(
        0.4,
        "{h.He} was not so afraid now",
        "On the way, they sang a [little|happy|quiet] song",
        "{f} told funny stories on the way",
    )
    s.para(0.5)
    s.say(
        "At last {h} saw {h.his} home. {e} was waiting [at the door|with open arms]",
        'Soon {h.he} was home again. "There you are!" said {e}, and hugged {h.him}',
        '"I see my home!" shouted {h}. {e} came running and held {h.him} tight',
    )
    s.maybe(
        0.6,
        '"Thank you," {h} said to {f}',
        '"I will not go so far again," said {h}',
        "{e} gave {f} some {food} to say thank you",
    )
    s.qa += [
        ("How did {h} get home?", "{h.He} followed {sign}."),
        ("Who helped {h}?", "{f.The} helped {h.him}."),
        ("Why did {h} get lost?", "{h.He} followed {lure} and went too far."),
    ]
    ending(s)


def broken_thing(s):
    """The hero breaks a thing, wants to hide it, and tells the truth."""
    c = s.cast
    c["e"] = make_elder(s, c["h"], family=True)
    o = c["o"] = Thing(
        s.pick(["vase", "cup", "plate", "clock", "jar", "bowl", "lamp", "window", "teapot", "mirror"]),
        s.pick(["blue", "white", "old", "pretty", "big", "yellow", "green", "favorite", "special"]),
    )
    c["hide"] = s.pick(
        ["under the bed", "behind the door", "in a box", "under a rug", "behind a big pot", "in the garden"]
    )
    s.theme = "honest"
    s.gist = s.pick(["who broke {o.a}", "who broke " + an(o.n), "who told the truth", "who made a mistake"])
    s.title = s.pick(["The Broken {o.n}", "{h.tag} Tells the Truth"])
    opening(s, day=False)
    s.say(
        "{e} had {o.a} and [loved it very much|kept it near the door|was very proud of it]",
        'At home, {e} had {o.a}. "Please be careful with it," {e.he} always said',
    )
    s.para(0.5)
    s.say(
        "One {weather} day, {h} was [playing with a ball|dancing|running|jumping] [inside|in the room] and hit {o.the_full}",
        "One day, {h} [ran through the house|jumped too high|threw {h.his} ball] and bumped into {o.the}",
        "One morning, {h} wanted to [touch|look at] {o.the}, but it slipped",
    )
    s.say(
        "Crash! {o.the} broke into [many|a hundred|small] pieces",
        "Crack! {o.the} fell and broke",
        "{o.the} fell down and broke in two",
    )
    s.say(
        '{h} was afraid. "{e.Call} will be [angry|sad]," {h.he} thought',
        '"Oh no, what have I done?" said {h}',
        "{h.His} heart beat fast. Nobody had seen it",
    )
    pet(s, "{pet.call} looked at {h.him} with big eyes")
    s.say("{h} hid the pieces {hide}", "So {h.he} put the broken {o.n} {hide} and said nothing")
    s.para(0.5)
    s.say(
        'In the evening, {e} asked, "Where is my {o.n}?"',
        'When {e} came home, {e.he} looked around. "Where is the {o.n}?" {e.he} asked',
    )
    s.say(
        "{h} looked at the floor. {h.He} felt [bad|a stone in {h.his} belly|terrible]",
        '"I do not know," said {h}, but {h.his} face was red',
        "{h} wanted to say that the wind did it, but it did not feel right",
    )
    s.say(
        '"I broke it," {h} said at last. "I am [very |so |]sorry."',
        'Then {h} took a deep breath. "It was me," {h.he} said. "I hid it {hide}. I am sorry."',
        'Then {h} told the truth. "I broke the {o.n} and hid it {hide}," {h.he} said',
    )
    s.para(0.4)
    s.say(
        '{e} was [quiet|sad] for a moment. Then {e.he} [smiled|hugged {h.him}]. "Thank you for telling the truth," {e.he} said',
        '{e} hugged {h.him}. "A {o.n} is only a {o.n}. I am glad you told me," {e.he} said'
        if c["o"].n[0] not in "aeiou"
        else '{e} hugged {h.him}. "I am glad you told me," {e.he} said',
    )
    s.say(
        "Together they [glued the pieces|fixed {o.the}|swept up the pieces]",
        "The next day, {h} helped {e} to make a new one",
        "They glued {o.the} together again, and {h} painted a little [flower|star|heart] on it",
    )
    s.qa += [("What did {h} break?", "{h.He} broke {o.a}."), ("Where did {h} hide the {o.n}?", "{h.He} hid it {hide}.")]
    ending(s)


def grow_plant(s):
    """The hero plants something and learns to wait."""
    c = s.cast
    c["f"] = make_friend(s, c["h"])
    c["plant"], c["seed"] = s.pick(props.PLANTS)
    c["a_seed"] = an(s.pick(["small ", "tiny ", "round ", "little ", "brown "]) + c["seed"])
    c["a_plant"] = an(c["plant"])
    s.theme = "patience"
    s.gist = s.pick(["who planted {a_seed}", "who grew {a_plant}", "and {a_plant}", "who had to wait"])
    s.title = s.pick(["The Little {seed}", "{h.tag} and the {plant}"])
    opening(s)
    s.say(
        "{h} found {a_seed} {spot}",
        "There {h.he} found {a_seed}",
        '{f.A} gave {h} {a_seed}. "Plant it and wait," {f.he} said',
    )
    s.say(
        "{h.He} dug a little hole and put the {seed} in it",
        '"I will plant it," said {h}. {h.He} put it in the soft earth',
        "{h} planted it next to {h.his} home",
    )
    s.maybe(0.6, "{h.He} gave it some water", "Then {h.he} sang to it", '"Grow, little {seed}, grow!" {h.he} said')
    s.para(0.5)
    s.say(
        "The next day, {h} looked at the ground. Nothing was there",
        "{h} waited one day, then two days, then three. Nothing happened",
        "Every morning {h.he} ran to look. But there was only brown earth",
    )
    if not c["f"].mentioned:
        s.say("{f.Intro} [came by|sat down beside {h.him}|was passing by]")
    s.say(
        '"Why does it not grow?" {h} asked {f}. "Wait," said {f}. "Good things take time."',
        '{h} was [sad|angry]. "It will never grow," {h.he} said. But {f.the} said, "Give it water and sun, and wait."',
        '{h} wanted to dig it up. "Do not do that," said {f}. "It is sleeping. It needs time."',
    )
    s.say(
        "So {h} gave it water every day and waited",
        "So {h} waited. The rain fell, and the sun shone",
        "{h} listened. Every day {h.he} brought water, and every night {h.he} said good night to the {seed}",
    )
    pet(s, "{pet.call} waited too")
    s.para(0.5)
    s.say(
        "Then one morning there was a [tiny|small] green leaf",
        "At last, after many days, a green leaf came out of the ground",
        'One {weather} morning, {h} saw something green. "It is growing!" {h.he} shouted',
    )
    s.say(
        "It grew and grew, until it was a [big|tall|beautiful] {plant}",
        "Week by week it grew, and soon there was a [fine|big|lovely] {plant}",
        "By the end of summer, it was the most beautiful {plant} {p.at}",
    )
    s.maybe(
        0.7,
        "{h} and {f} sat beside it and [smiled|had a picnic]",
        '{h} showed it to {f}. "You were right," {h.he} said',
        "Everyone came to see it",
    )
    s.qa += [
        ("What did {h} plant?", "{h.He} planted {a_seed}."),
        ("What grew?", "It grew into {a_plant}."),
        ("Who told {h} to wait?", "{f.The} told {h.him} to wait."),
    ]
    ending(s)


def trade_chain(s):
    """The hero wants a thing; its owner wants another, whose owner wants help."""
    c = s.cast
    h = c["h"]
    o = c["o"] = make_thing(s)
    f = c["f"] = make_friend(s, h)
    c["g"] = make_friend(s, f, h)
    c["help"], c["helped"] = s.pick(
        [
            ("sweep the path", "swept the path"),
            ("carry some wood", "carried the wood"),
            ("water my flowers", "watered the flowers"),
            ("clean my house", "cleaned the house"),
            ("pick some apples", "picked the apples"),
            ("fix my door", "fixed the door"),
            ("watch my baby", "watched the baby"),
            ("wash the dishes", "washed the dishes"),
            ("find my glasses", "found the glasses"),
        ]
    )
    s.theme = "trade"
    s.gist = s.pick(["who wanted {o.a}", "who wanted " + an(o.n), "who traded {food} for {o.a}"])
    s.title = s.pick(["A Good Trade", "The {o.full}", "{h.tag} Wants {o.a}"])
    opening(s)
    s.say(
        '{h} saw {f.a} with {o.a}. "I wish I had {o.a}," {h.he} thought',
        "There {h.he} met {f.intro}, who had {o.a}. {h} wanted it very much",
    )
    s.say(
        '"May I have your {o.n}?" asked {h}. "Yes," said {f}, "if you bring me some {food}."',
        '"I will give you my {o.n}," said {f}, "but I am hungry. Bring me some {food} first."',
    )
    s.para(0.5)
    s.say(
        "So {h} went to {g.intro}, who had a lot of {food}", "{h} knew that {g.intro} had {food}, so {h.he} went there"
    )
    s.say(
        '"May I have some {food}?" asked {h}. "Of course," said {g}, "but first, please {help}."',
        '"I will give you some {food}," said {g}, "if you {help}."',
    )
    s.say(
        "{h} worked hard and {helped}",
        "So {h} {helped}. It took [all morning|an hour|a long time]",
        '"Yes, I will," said {h}, and {h.he} {helped}',
    )
    pet(s, "{pet.call} helped a little too")
    s.say("{g} was happy and gave {h.him} the {food}", '"Well done," said {g}, and gave {h.him} a basket of {food}')
    s.para(0.5)
    s.say("{h} ran back to {f} with the {food}", "Then {h} carried the {food} to {f}")
    s.say(
        "{f} ate the {food} and gave {h} {o.the_full}",
        '"Thank you! Here is your {o.n}," said {f}',
        '"Yum!" said {f}, and {f.he} gave {h.him} {o.the_full}',
    )
    s.say(
        "Now {h} had {o.a}, and everyone was happy",
        "{h} was very proud, because {h.he} had worked for it",
        "{h} held {o.the} and smiled",
    )
    s.qa += [
        ("What did {h} want?", "{h.He} wanted {o.a}."),
        ("What did {f.the} want?", "{f.He} wanted some {food}."),
        ("Who had the {food}?", "{g.The} had the {food}."),
    ]
    ending(s)


def gift(s):
    """A birthday without a present: the hero makes one."""
    c = s.cast
    f = c["f"] = make_friend(s, c["h"])
    made = s.pick(
        [
            ("crown", "flowers"),
            ("necklace", "shells"),
            ("hat", "leaves"),
            ("picture", "petals and berry juice"),
            ("basket", "grass"),
            ("bracelet", "berries"),
            ("little boat", "bark"),
            ("star", "straw"),
            ("pillow", "soft moss"),
            ("flute", "a reed"),
            ("blanket", "wool"),
            ("song", "happy words"),
            ("doll", "sticks and string"),
        ]
    )
    c["made"], c["stuff"] = made
    c["a_made"] = an(made[0])
    s.theme = "gift"
    s.gist = s.pick(["who made a gift", "who had no gift for a friend", "and a birthday party", "who made {a_made}"])
    s.title = s.pick(["The Best Gift", "A Birthday for {f.tag}" if f.name else "The Birthday Gift", "The {made}"])
    opening(s, day=False)
    s.say("{h.His} best friend was {f.intro}", "{h} had a good friend, {f.intro}")
    s.para(0.5)
    s.say(
        "One day, it was {f.the}'s birthday",
        "Tomorrow was {f.the}'s birthday",
        'One {weather} morning, {f} said, "Come to my birthday party today!"',
    )
    s.say(
        "{h} wanted to give {f.him} something [nice|special], but {h.he} had no money",
        "But {h} had no gift",
        '"What can I give {f.him}?" {h} thought. {h.He} looked in {h.his} bag, but it was empty',
    )
    s.say("{h} was sad. {h.He} went {p.to} to think", "{h} walked {p.at} and thought and thought")
    s.say(
        "There {h.he} saw {stuff}" if made[0] != "song" else "There {h.he} heard the birds sing",
        "Then {h.he} had an idea",
    )
    s.say('"I know! I can make {a_made}!" said {h}', '"I will make {a_made}," {h} said')
    s.say(
        "{h.He} worked all [day|morning|afternoon] and made {a_made} out of {stuff}",
        "{h} took {stuff} and made [the loveliest|a beautiful|a fine] {made}"
        if s.chance(0.5)
        else "With {stuff}, {h.he} made {a_made}. It was not perfect, but it was [pretty|made with love]",
    )
    pet(s, "{pet.call} sat beside {h.him} and watched")
    s.para(0.5)
    s.say(
        "At the party, the others gave [toys|big boxes|cakes and sweets]. {h} felt shy",
        "At the party, {h} held the {made} behind {h.his} back",
        '{h} went to the party and gave {f.him} the {made}. "I made it for you," {h.he} said',
    )
    s.say(
        '{f} looked at the {made}, and {f.his} eyes [shone|grew big]. "This is the best gift of all!" {f.he} said',
        '"Oh, {a_made}! It is so beautiful," said {f}, and hugged {h.him}',
        '"Did you make it for me?" asked {f}. "I love it!"',
    )
    s.maybe(0.5, "Then they all ate {food} and danced", "They [sang|danced|laughed] until the moon came up")
    s.qa += [
        ("What did {h} make?", "{h.He} made {a_made} out of {stuff}."),
        ("Whose birthday was it?", "It was {f.the}'s birthday."),
    ]
    ending(s, pair=True)


PLOTS = [(lost_thing, 3.0), (lost_way, 1.2), (broken_thing, 1.0), (grow_plant, 1.0), (trade_chain, 1.0), (gift, 1.0)]
