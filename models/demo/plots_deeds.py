"""Plots about doing: rescues, skills, building, races, storms, strange sounds, treasure, cooking."""

from grammar import Thing, an, ending, make_animal, make_elder, make_friend, opening, pet

RESCUES = [("in a deep hole", "fell into it", "a long rope", "let it down", "climbed out", "by the path"),
           ("in a thorny bush", "got caught in it", "a strong stick", "pushed the thorns away", "came out", "near the fence"),
           ("in thick mud", "sank in to the knees", "a long branch", "held it out", "held on and came free", "by the water"),
           ("in an old net", "ran right into it", "a sharp stone", "cut the net", "was free", "on the ground"),
           ("under a fallen branch", "did not see it fall", "a long pole", "lifted the branch with it", "crawled out", "nearby"),
           ("on a rock in the river", "slipped and fell in", "a big log", "pushed it into the water", "walked over it", "on the bank"),
           ("in a tall tree", "climbed too high", "a ladder", "put it against the tree", "came down", "by the barn")]


def rescue(s):
    """Somebody is stuck; the hero finds the right tool, alone or with the others."""
    c = s.cast
    c["f"] = make_animal(s, [c["h"]], named=0.4, pool=["rabbit", "hedgehog", "puppy", "kitten", "sheep", "goat", "deer", "chick", "mouse", "fox", "pig", "duck", "turtle",
                                                      "squirrel", "pony", "cat"])
    c["trap"], c["how"], c["tool"], c["use"], c["free"], c["by"] = s.pick(RESCUES)
    s.theme = "help"
    s.gist = s.pick(["who saved {f.plain}", "who helped {f.plain}", "and {f.plain} stuck {trap}", "who helped a friend"])
    s.title = s.pick(["{h.tag} to the Rescue", "The {h.noun} Who Helped", "Help for the {f.noun}"])
    opening(s)
    s.say("Suddenly {h.he} heard a [cry|small voice]. \"Help! Please help me!\"", "Then {h} heard somebody call, \"Help!\"")
    s.say("{h} ran to look. {f.Intro} was stuck {trap}", "It was {f.intro}, stuck {trap}")
    s.say("\"What happened?\" asked {h}. \"I {how},\" said {f}" if c["how"] != "sank in to the knees" else "\"I cannot move,\" said {f}", "{f} was crying. \"I cannot get out,\" {f.he} said",
          "\"Do not be afraid. I will help you,\" said {h}")
    s.para(0.5)
    s.say("{h} pulled and pulled, but it did not work", "First {h} tried to pull {f.him} out. {h.He} was not strong enough", "{h} thought hard. \"What can I do?\" {h.he} asked")
    pet(s, "{pet.call} pulled too")
    s.say("Then {h.he} saw {tool} {by}. \"That will help!\" {h.he} said", "\"I know!\" said {h}. {h.He} ran and found {tool} {by}", "{h} looked around and saw {tool} {by}")
    s.say("{h} took {tool} and {use}", "{h.He} brought {tool} and {use}")
    s.say("{f} {free}", "Slowly, {f} {free}", "One, two, three! {f} {free}")
    s.para(0.5)
    s.say("\"Thank you!\" said {f}. \"You saved me!\"", "{f} was so happy that {f.he} cried. \"How can I thank you?\" {f.he} asked. \"Be my friend,\" said {h}",
          "\"You are a hero,\" said {f}")
    s.maybe(0.6, "{f} gave {h} some {food}", "They sat down in the sun and ate some {food}", "{h} took {f} home to {f.his} family")
    s.qa += [("Who did {h} help?", "{h.He} helped {f.the}."), ("Where was {f.the} stuck?", "{f.He} was stuck {trap}."), ("How did {h} help?", "{h.He} took {tool} and {use}.")]
    ending(s, pair=s.chance(0.7))


SKILLS = [("swim", "sank like a stone", "swam across the pond", "move your feet slowly and breathe"), ("dance", "fell over {h.his} own feet", "danced at the big feast", "listen to the music first"),
          ("whistle", "made only a puff of air", "whistled a whole song", "make your lips round"), ("ride a bike", "fell into the grass", "rode all around the village", "look ahead and not down"),
          ("paint", "made a brown mess", "painted a picture of the sunset", "use only a little paint"), ("sing", "made a sound like a rusty door", "sang for everyone", "take a deep breath"),
          ("skate", "slid on {h.his} back", "skated across the ice", "bend your knees"), ("bake bread", "burned it black", "baked a golden loaf of bread", "wait for the dough to rise"),
          ("read", "mixed up all the letters", "read a whole book", "read one word at a time"), ("play the drum", "lost the beat", "played in the parade", "count one, two, three, four"),
          ("jump over the stream", "fell into the water", "jumped over the stream", "run fast before you jump"), ("juggle", "dropped every ball", "juggled three apples", "start with two"),
          ("tie a knot", "got tangled in the rope", "tied a strong knot", "make a loop first"), ("climb a tree", "slid back down", "climbed to the very top", "hold on with both hands")]


def learn_skill(s):
    """The hero cannot do something, gets advice, practices and succeeds."""
    c = s.cast
    e = c["e"] = make_elder(s, c["h"])
    c["skill"], c["fail"], c["win"], c["tip"] = s.pick([k for k in SKILLS if not (k[0] == "swim" and "swim" in c["h"].skills) and not (k[0] == "climb a tree" and "climb" in c["h"].skills)])
    c["fail"] = s.fragment(c["fail"])
    s.theme = "practice"
    s.gist = s.pick(["who wanted to {skill}", "who learned to {skill}", "who could not {skill}"])
    s.title = s.pick(["{h.tag} Learns to {skill}", "The {h.noun} Who Wanted to {skill}"])
    opening(s, day=False)
    s.say("More than anything, {h} wanted to {skill}", "But {h} could not {skill}", "{h} had a dream. {h.He} wanted to {skill}", "All the others could {skill}, but {h} could not")
    s.para(0.4)
    s.say("One {weather} day, {h} tried. {h.He} {fail}", "One day, {h.he} tried to {skill}, but {h.he} {fail}")
    s.say("{h.He} tried again, and again {h.he} {fail}", "The others laughed. {h.His} face turned red", "\"I will never learn it!\" {h} cried", "\"It is too hard,\" {h.he} said")
    pet(s, "{pet.call} put {pet.his} head on {h.his} knee")
    s.para(0.5)
    if e.kind == "family":
        s.say("{e} saw it and sat down beside {h.him}", "{h} went to {e}. \"Can you help me?\" {h.he} asked")
    else:
        s.say("{e.A} saw it and came closer", "{h} went to {e.a}. \"Can you help me?\" {h.he} asked")
    s.say("\"You must {tip},\" said {e}, \"and try a little every day.\"", "\"I could not do it at first either,\" said {e}. \"Just {tip}.\"", "\"Try to {tip},\" {e} said. \"And do not give up.\"")
    s.say("So {h} practiced every [day|morning]", "{h} tried and tried, day after day", "{h} nodded and tried again the next day, and the next")
    s.say("On Monday {h.he} {fail}. On Tuesday it was a little better", "Each time it was a little better", "Some days were good, and some days were bad, but {h.he} did not stop")
    s.para(0.5)
    s.say("Then, one {weather} morning, {h} did it! {h.He} {win}", "At last the day came. {h} {win}", "After many days, {h} {win}")
    s.say("Everyone clapped. \"Well done!\" said {e}", "\"Look at me!\" {h.he} shouted. \"I can {skill}!\"", "{e} was very proud. \"I knew you could do it,\" {e.he} said")
    s.qa += [("What did {h} want to learn?", "{h.He} wanted to {skill}."), ("Who helped {h}?", "{e} helped {h.him}.")]
    ending(s)


PROJECTS = [("boat", "wood", "sail to the little island", "a sail", "an old sheet"), ("tree house", "planks", "look over the hills", "a ladder", "a long rope"),
            ("snowman", "snow", "have a winter friend", "a nose", "a carrot"), ("sand castle", "sand", "win the castle contest", "a flag", "a red leaf"),
            ("swing", "rope", "fly through the air", "a seat", "a flat board"), ("bridge", "logs", "cross the stream", "a railing", "some strong vines"),
            ("wagon", "boards", "ride down the hill", "four wheels", "four round lids"), ("raft", "logs", "float on the lake", "a paddle", "a flat branch"),
            ("kite", "paper", "touch the clouds", "a tail", "some ribbons"), ("birdhouse", "boards", "invite the birds", "a door", "a small ring of wood")]


def build(s):
    """The hero and friends build something; one part is missing, and the smallest finds it."""
    c = s.cast
    f = c["f"] = make_friend(s, c["h"])
    c["g"] = make_friend(s, f, c["h"])
    c["work"], c["stuff"], c["goal"], c["part"], c["found"] = s.pick(PROJECTS)
    c["a_work"] = an(c["work"])
    s.theme = "team"
    s.gist = s.pick(["who built {a_work}", "who wanted to build {a_work}", "and {f.plain} who built {a_work}"])
    s.title = s.pick(["The {work}", "{h.tag} Builds {a_work}", "Together"])
    opening(s)
    s.say("\"I want to {goal},\" said {h}. \"I will build {a_work}!\"", "{h} had an idea. \"Let us build {a_work},\" {h.he} said, \"and {goal}!\"")
    s.say("{h.He} began to [carry|collect] {stuff}, but it was hard to do alone", "{h.He} worked all morning, but it was too much for one")
    s.say("Then {f.intro} came by. \"What are you doing?\" {f.he} asked. \"I am building {a_work},\" said {h}", "{h.His} friend, {f.intro}, saw it. \"May I help?\" asked {f.the}")
    s.para(0.5)
    s.say("They worked side by side. {h} [carried|held] the {stuff}, and {f} put it [in place|together]" , "Together they worked and sang. Soon the {work} was almost ready")
    s.say("\"Something is missing,\" said {f}. \"We need {part}.\"", "But it needed {part}, and they had nothing to make one" if c["part"].startswith(("a ", "an ")) else "But it still needed {part}")
    s.maybe(0.5, "They looked {spot} and {spot2}, but found nothing", "\"What now?\" asked {h}")
    s.say("Then {g.intro} came with {found}. \"Can you use this?\" {g.he} asked", "{g.A} was watching them. \"I have {found},\" said {g.the}. \"You may have it.\"" if not c["found"].startswith(("some", "four")) else "{g.A} was watching them. \"I have {found},\" said {g.the}")
    s.say("\"Yes! It is perfect!\" they shouted", "\"That is just what we need!\" said {h}")
    pet(s, "{pet.call} jumped around them")
    s.para(0.5)
    s.say("When the sun went down, the {work} was finished", "At last the {work} was ready. It was [wonderful|the best {work} ever|a little crooked, but strong]")
    s.say("The next day, all three used it to {goal}" if c["work"] not in ("snowman", "sand castle", "kite", "birdhouse") else "All three stood and looked at it with pride", "\"We did it together,\" said {h}", "They [cheered|laughed|danced around it]")
    s.qa += [("What did {h} build?", "{h.He} built {a_work}."), ("What was missing?", "They needed {part}."), ("Who brought {found}?", "{g.The} brought it.")]
    ending(s)


def race(s):
    """A proud rival, a race, and a stop on the way."""
    c = s.cast
    f = c["f"] = make_friend(s, c["h"])
    c["prize"] = s.pick(["a golden cup", "a big cake", "a blue ribbon", "a basket of {food}", "a crown of flowers", "a silver medal"])
    c["prize"] = s.fragment(c["prize"])
    c["to2"] = s.pick(["to the old mill", "to the big rock", "around the lake", "to the top of the hill", "to the bridge and back", "to the tall pine tree"])
    s.theme = "proud"
    s.gist = s.pick(["who ran a race", "who wanted to win a race", "and {f.plain} in a race", "who won a race"])
    s.title = s.pick(["The Big Race", "{h.tag} and the Race"])
    opening(s, day=False)
    s.say("{f.Intro} lived nearby. {f.He} was [fast|strong] and very proud", "{h} knew {f.a} who was very proud. \"I am the fastest of all,\" {f.he} always said")
    s.para(0.5)
    s.say("One day, there was a race {to2}. The prize was {prize}", "One {weather} day, everyone came to see a race {to2}. The winner would get {prize}")
    s.say("\"I will win,\" said {f}. \"You are too slow!\"", "\"You can never beat me,\" {f} said to {h}", "{f} laughed at {h}. \"Why do you even try?\" {f.he} asked")
    s.say("\"I will do my best,\" said {h}", "{h} said nothing. {h.He} only smiled")
    s.say("One, two, three, go! {f} ran ahead, and {h} [came last|was far behind]", "The race began. {f} was soon far ahead")
    pet(s, "{pet.call} ran along the side")
    s.para(0.5)
    if s.chance(0.5):
        s.say("But {f} was so sure that {f.he} [sat down for a nap|stopped to eat|stopped to look at {f.himself} in the water]")
        s.say("{h} went on, step by step, and passed {f.him}", "{h} did not stop. Slowly, {h.he} came closer and closer, and then {h.he} was in front")
        s.say("When {f} saw it, it was too late. {h} won the race and got {prize}", "{h} came in first! Everyone cheered, and {h.he} got {prize}")
        s.say("\"You won,\" said {f} quietly. \"I was too proud.\" {h} shared the prize with {f.him}" if c["prize"][2:] in ("big cake",) or "basket" in c["prize"] else
              "\"I am sorry I laughed at you,\" said {f}. \"It is all right,\" said {h}", "\"I am sorry I laughed at you,\" said {f}. \"Good race,\" said {h}, and they shook hands")
        s.qa += [("Who won the race?", "{h} won the race.")]
    else:
        s.say("Then {f} [tripped over a root|slipped in the mud|hurt {f.his} foot] and fell. \"Ouch!\" {f.he} cried", "On the way, {h} saw {f} on the ground. {f.He} had hurt {f.his} foot")
        s.say("{h} could win now! But {h.he} stopped. \"Are you all right?\" {h.he} asked", "{h} wanted the prize, but {h.he} stopped to help")
        s.say("{h} helped {f.him} up, and they walked to the end together", "\"Hold on to me,\" said {h}. Step by step, they went on together")
        s.say("They came in last, but everyone cheered, and both of them got {prize}", "\"You could have won,\" said {f}. \"A friend is better than {prize},\" said {h}")
        s.qa += [("Why did {h} stop?", "{h.He} stopped to help {f.the}.")]
    s.qa += [("What was the prize?", "It was {prize}.")]
    ending(s, pair=True)


MYSTERIES = [("a strange tapping sound", "Tap, tap, tap", "a woodpecker making a new home"), ("a low humming sound", "Hum, hum, hum", "a hive of bees singing at their work"),
             ("a strange light", "It blinked on and off", "a group of fireflies having a party"), ("a deep moaning sound", "Oooh, oooh", "the wind in a hollow tree"),
             ("a big dark shadow", "It moved from side to side", "an old coat on a branch"), ("a scratching sound", "Scratch, scratch, scratch", "a baby hedgehog looking for its mother"),
             ("a splashing sound", "Splash, splash", "two baby ducks learning to swim"), ("a ringing sound", "Ding, ding, ding", "a lamb with a little bell"),
             ("two shining eyes", "They looked right at {h.him}", "a small owl that was just as scared"), ("a trail of strange footprints", "They were big and round", "a friendly giant looking for the way")]


def mystery(s):
    """A strange sound or light turns out to be something nice."""
    c = s.cast
    f = c["f"] = make_friend(s, c["h"])
    c["thing"], sound, c["real"] = s.pick(MYSTERIES)
    c["sound"] = s.fragment(sound)
    s.theme = "wonder"
    s.gist = s.pick(["who heard {thing}" if "sound" in c["thing"] else "who saw {thing}", "and {thing}", "and a mystery"])
    s.title = s.pick(["The Strange Night", "What Was That?", "{h.tag} and the Mystery"])
    verb = c["verb"] = "heard" if "sound" in c["thing"] else "saw"
    opening(s, day=False)
    s.para(0.4)
    s.say(f"One [dark|quiet|windy|cold] night, {{h}} {verb} {{thing}} {{p.at}}. {{sound}}", f"One evening, when the sun was down, {{h}} {verb} {{thing}}. {{sound}}")
    s.say("\"What is that?\" whispered {h}", "\"Maybe it is a monster,\" {h.he} thought", "{h.His} heart beat fast. \"Who is there?\" {h.he} called. Nobody answered")
    s.say("{h.He} ran to {h.his} friend, {f.intro}. \"Come quickly!\" {h.he} said", "Then {f.intro} came. \"Did you see it too?\" {f.he} asked" if verb == "saw" else "Then {f.intro} came. \"Did you hear it too?\" {f.he} asked")
    s.para(0.5)
    s.say("\"Let us go and look,\" said {f}. \"I am afraid,\" said {h}, \"but I will come with you.\"", "{f} wanted to hide, but {h} said, \"I want to know what it is.\"",
          "They took a lantern and held hands")
    pet(s, "{pet.call} hid behind {h.his} legs")
    s.say("Slowly, they walked closer. They looked {spot}", "They crept through the dark, step by step, until they came to a place {spot}", "{spot}, they stopped and looked")
    s.say("And what did they see? It was only {real}!", "It was not a monster at all. It was {real}", "There it was. It was {real}")
    s.para(0.4)
    s.say("{h} began to laugh. \"And we were so afraid!\" {h.he} said", "They laughed and laughed", "\"Oh!\" said {h}. \"That is not scary at all.\"", "\"How wonderful!\" said {f}")
    s.maybe(0.6, "They sat down and watched for a long time", "They went home and slept well", "The next day, they told everyone about it")
    s.qa += [(f"What did {{h}} {'hear' if verb == 'heard' else 'see'}?", "It was {real}."), ("Who went with {h}?", "{f.The} went with {h.him}.")]
    ending(s, pair=s.chance(0.4))


def storm(s):
    """A storm, a shelter that is somebody's home, and a rainbow."""
    c = s.cast
    f = c["f"] = make_friend(s, c["h"])
    c["bad"], c["fell"], c["after"] = s.pick([("storm", "Rain fell, and thunder rolled", "a rainbow stood over the hills"), ("snowstorm", "Snow fell thick and fast", "the whole world was white and shining"),
                                              ("rain", "It rained and rained", "a big rainbow was in the sky"), ("wind", "The wind pushed and pulled at everything", "the air was calm and golden")])
    c["shelter"] = s.pick(["a hollow tree", "a small cave", "an old barn", "a little hut", "a house with a light in the window", "a hole under the roots of a tree"])
    s.theme = s.pick(["kind", "friend", "help"])
    s.gist = s.pick(["in a storm", "who was caught in the {bad}", "who met {f.plain} in a storm"])
    s.title = s.pick(["The Big {bad}", "After the {bad}", "{h.tag} in the {bad}"])
    opening(s)
    s.say("Suddenly the sky turned dark", "Then big gray clouds came over the hill", "All at once the wind grew cold, and the sky turned black")
    s.say("{fell}. {h} was [wet and cold|cold and afraid|far from home]", "{fell}. \"I must find a dry place,\" said {h}")
    s.para(0.4)
    s.say("{h.He} ran and ran until {h.he} saw {shelter}", "At last {h} saw {shelter} and went inside")
    s.say("But somebody was already there. It was {f.intro}", "\"Who is there?\" asked a voice. It was {f.intro}")
    s.say("\"May I stay here until the {bad} is over?\" asked {h}", "\"I am sorry,\" said {h}. \"I did not know this was your home.\"", "\"I am cold and wet,\" said {h}")
    s.say("\"Of course,\" said {f}. \"There is room for two.\"", "\"Come in and get warm,\" said {f}, and gave {h.him} some {food}", "{f} looked at {h.him} and smiled. \"You are welcome here,\" {f.he} said")
    pet(s, "{pet.call} shook the water off")
    s.para(0.4)
    s.say("They sat close together and told stories", "They ate some {food} and listened to the {bad}", "{f} sang a song, and {h} forgot to be afraid")
    s.say("When it was over, {after}", "In the morning, {after}")
    s.say("\"Thank you for letting me in,\" said {h}. \"Come and visit me!\"", "\"The {bad} brought me a friend,\" said {f}", "They stood outside and looked at it together")
    s.qa += [("Where did {h} hide from the {bad}?", "{h.He} hid in {shelter}."), ("Who did {h} meet?", "{h.He} met {f.intro}.")]
    ending(s, pair=True)


def warned(s):
    """Good advice, not followed, and a lesson."""
    c = s.cast
    c["e"] = make_elder(s, c["h"], family=True)
    c["f"] = make_friend(s, c["h"])
    c["rule"], c["broke"], c["trouble"], c["helped"] = s.pick([
        ("go near the river", "went to the river", "{h.he} slipped and fell into the cold water", "pulled {h.him} out"),
        ("eat the red berries", "ate a handful of red berries", "{h.his} belly began to hurt", "brought {h.him} some warm tea"),
        ("climb the old tower", "climbed the old tower", "a step broke, and {h.he} could not get down", "brought a ladder"),
        ("walk on the thin ice", "walked on the ice", "the ice went crack, and {h.his} foot got wet", "pulled {h.him} back to the bank"),
        ("touch the bee hive", "touched the bee hive", "the bees came out and chased {h.him}", "showed {h.him} where to hide"),
        ("eat too many sweets", "ate a whole bag of sweets", "{h.his} belly hurt very much", "made {h.him} some soup"),
        ("go into the dark cave", "went into the dark cave", "{h.he} could not find the way out", "came with a lantern and led {h.him} out"),
        ("open the gate", "opened the gate", "all the sheep ran out", "helped {h.him} to bring them back"),
        ("play with mud inside", "brought mud into the house", "everything was brown and sticky", "helped {h.him} to clean it all")])
    c["trouble"], c["helped"] = s.fragment(c["trouble"]), s.fragment(c["helped"])
    s.theme = "listen"
    s.gist = s.pick(["who did not listen", "who {broke}", "who learned to listen"])
    s.title = s.pick(["{h.tag} Did Not Listen", "Good Advice"])
    opening(s, day=False)
    s.say("\"You may play,\" said {e}, \"but do not {rule}.\"", "Every day, {e} said, \"Please do not {rule}.\"", "{e} always told {h.him}, \"Never {rule}!\"")
    s.say("\"I will not,\" said {h}", "\"Yes, yes,\" said {h}, but {h.he} did not really listen", "{h} wanted to know why")
    s.para(0.5)
    s.say("One {weather} day, {h} was alone. {h.He} forgot the rule and {broke}", "But one day, when {e} was busy, {h} {broke}", "\"Only once,\" thought {h}, and {h.he} {broke}")
    s.maybe(0.5, "At first it was fun", "It was nice for a little while")
    s.say("But then {trouble}", "Suddenly {trouble}", "Oh no! Now {trouble}")
    pet(s, "{pet.call} made a lot of noise to call for help")
    s.say("\"Help!\" cried {h}", "{h} was very sorry now", "\"I should have listened,\" {h} thought")
    s.para(0.4)
    s.say("Luckily, {f.intro} heard it and {helped}", "{f.Intro} came by and {helped}", "{h.His} friend, {f.intro}, came running and {helped}")
    s.say("At home, {h} told {e} everything. \"I am sorry,\" {h.he} said", "Then {h} went home. \"I did not listen,\" {h.he} told {e}. \"I am sorry.\"")
    s.say("{e} hugged {h.him}. \"I am only glad that you are safe,\" {e.he} said", "\"Now you know why,\" said {e}, and kissed {h.him}", "{e} was not angry. \"Next time you will know better,\" {e.he} said")
    s.qa += [("What did {h} do wrong?", "{h.He} {broke}."), ("Who helped {h}?", "{f.The} {helped}.")]
    ending(s)


def treasure(s):
    """A map, a search in three steps, and what lies in the box."""
    c = s.cast
    f = c["f"] = make_friend(s, c["h"])
    c["inside"] = s.pick(["old toys", "a pile of books", "seeds for a whole garden", "a hundred shiny buttons", "golden coins", "sweets for everyone", "a music box", "letters from long ago",
                          "a mirror and a note that said, \"You are the treasure\""])
    s.theme = s.pick(["team", "share", "wonder"])
    s.gist = s.pick(["who found a treasure", "who found a map", "and a treasure map", "and a hidden box"])
    s.title = s.pick(["The Treasure Map", "{h.tag} Finds a Treasure", "The Hidden Box"])
    c["o"] = Thing("box", s.pick(["small", "wooden", "green", "old", "heavy", "rusty"]))
    opening(s)
    s.say("{spot}, {h} found an old map", "There {h.he} found a piece of paper {spot}. It was a map!", "The wind blew a piece of paper to {h.his} feet. It was a map with a red X")
    s.say("\"A treasure!\" said {h}. {h.He} ran to {f.intro}. \"Will you come with me?\"", "{h} showed it to {h.his} friend, {f.intro}. \"Let us find the treasure!\" said {f}")
    s.para(0.5)
    s.say("They walked over the [hill|bridge|stream] and past the [mill|tall rocks|old well]", "First they crossed the stream. Then they climbed the hill", "They went left, and then right, and then straight on")
    s.say("On the way, {h} got tired. \"Do not stop now,\" said {f}", "Once they lost the path, but {f} found it again", "It was a long way, and they shared some {food}")
    pet(s, "{pet.call} ran ahead")
    s.say("At last they came to a place {spot2}. \"Dig here!\" said {h}", "The X was {spot2}. They dug and dug")
    s.say("Clunk! There was {o.a}", "Deep in the earth was {o.a}", "They pulled out {o.a}")
    s.para(0.4)
    s.say("{h} opened it slowly. Inside was {inside}" if c["inside"].startswith("a ") else "{h} opened it slowly. Inside were {inside}" )
    s.say("\"What shall we do with it?\" asked {f}. \"We will share it with everyone,\" said {h}", "\"This is the best day of my life,\" said {f}", "They looked at each other and laughed")
    s.maybe(0.6, "They carried the box home together", "{h} hung the map on the wall")
    s.qa += [("What was in the box?", "Inside was {inside}." if c["inside"].startswith("a ") else "Inside were {inside}."), ("Who went with {h}?", "{f.The} went with {h.him}.")]
    ending(s, pair=s.chance(0.6))


PLOTS = [(rescue, 1.5), (learn_skill, 1.4), (build, 1.1), (race, 1.0), (mystery, 1.1), (storm, 1.0), (warned, 1.0), (treasure, 1.0)]
