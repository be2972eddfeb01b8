"""Templates, the cast of a story, and the parts that all plots share (openings, endings).

A template is text with choices `[a|b|]`, which nest, and slots `{name}` or `{name.attr}` that are
looked up in the story. A slot that starts a sentence is capitalised by itself; `{Name.attr}` forces
a capital, which is needed after a question or an exclamation inside quotes.
"""

from functools import lru_cache
from zlib import crc32

import lexicon as lx
import props

PRONOUNS = {
    "m": {"he": "he", "him": "him", "his": "his", "himself": "himself", "child": "boy"},
    "f": {"he": "she", "him": "her", "his": "her", "himself": "herself", "child": "girl"},
}


def an(words):
    """The words with their indefinite article."""
    silent = words.startswith(("honest", "hour"))
    vowel = words[0] in "aeiou" and not words.startswith(("uni", "use"))
    return ("an " if vowel or silent else "a ") + words


class Who:
    """One character. Attributes used by templates: `he him his himself a the noun call intro tag`.

    A name is used only once it has been told: a fox that came in as "a fox" stays "the fox" unless
    an `intro` or a `call` gives its name.
    """

    def __init__(self, kind, noun, gender, name, adj, home, skills=""):
        self.kind, self.noun, self.gender, self.name, self.adj = kind, noun, gender, name, adj
        self.home, self.skills = home, skills.split()
        self.__dict__.update(PRONOUNS[gender])
        self.plain = an(noun)
        self.mentioned = self.name_told = False

    def ref(self, rng):
        """How the story refers to the character by default: a name, or "the fox", or "the little fox"."""
        if self.kind == "family":
            return self.the
        roll = rng.random()
        if self.name and (self.name_told or not self.mentioned) and (self.kind in ("child", "pet") or roll < 0.8):
            return self.call
        self.mentioned = True
        return f"the {self.adj} {self.noun}" if roll > 0.92 else "the " + self.noun

    @property
    def a(self):
        self.mentioned = True
        return an(f"{self.adj} {self.noun}")

    @property
    def the(self):
        if self.kind == "family":
            return f"{self.owner.his} {self.noun}"
        if self.kind in ("child", "pet") and (self.name_told or not self.mentioned):
            return self.call
        self.mentioned = True
        return "the " + self.noun

    @property
    def call(self):
        """The name itself, which is known from here on."""
        self.mentioned = True
        self.name_told = self.name is not None
        return self.name or (self.noun.capitalize() if self.kind == "family" else self.noun)

    @property
    def intro(self):
        return f"{self.a} named {self.call}" if self.name else self.a

    @property
    def naming(self):
        """A sentence that tells the name, to stand after a clause; nothing if there is no name."""
        return f". {self.his.capitalize()} name was {self.call}" if self.name else ""

    @property
    def tag(self):
        """For titles: the name if the story tells it."""
        return self.name if self.name_told else "the " + self.noun


class Thing:
    """An object of the story: `a` "a red kite", `the` "the kite", `the_full` "the red kite"."""

    def __init__(self, noun, adj, kind=""):
        self.n, self.adj, self.kind = noun, adj, kind
        self.full = f"{adj} {noun}"
        self.a, self.the, self.the_full = an(self.full), "the " + noun, "the " + self.full

    def ref(self, _rng):
        return self.n


@lru_cache(maxsize=None)
def parse(text):
    """The template as a tree: a tuple of str, ("slot", name, attr, force) and ("any", options)."""
    node, pos, closer = _parse_sequence(text, 0, "")
    assert pos == len(text), f"unbalanced template: {text!r}"
    return node


def _parse_sequence(text, pos, stops):
    parts, start = [], pos
    while pos < len(text) and text[pos] not in stops:
        if text[pos] not in "[{":
            pos += 1
            continue
        parts.append(text[start:pos])
        if text[pos] == "{":
            end = text.index("}", pos)
            name, _, attr = text[pos + 1 : end].partition(".")
            force = name[0].isupper() or attr[:1].isupper()
            parts.append(("slot", name[0].lower() + name[1:], attr and attr[0].lower() + attr[1:], force))
            pos = end + 1
        else:
            options = []
            while text[pos] != "]":
                option, pos, _ = _parse_sequence(text, pos + 1, "|]")
                options.append(option)
            parts.append(("any", options))
            pos += 1
        start = pos
    parts.append(text[start:pos])
    return tuple(p for p in parts if p), pos, text[pos : pos + 1]


class Story:
    """A story under construction: the cast (`self.cast`, by slot name), and paragraphs of sentences."""

    def __init__(self, rng):
        self.rng, self.cast, self.paragraphs, self.said = rng, {}, [[]], set()
        self.gist, self.theme, self.qa, self.title = "", "friend", [], ""
        self.short = rng.random() < 0.35  # leave out the optional sentences

    def pick(self, options):
        return options[int(self.rng.random() * len(options))]

    def lean(self, key, options, n=3, p=0.5):
        """Mostly one of the n options that this key prefers: so foxes differ from bears as well as from foxes."""
        if self.chance(p):
            start = crc32(f"{key}/{len(options)}".encode())
            return options[(start + int(self.rng.random() * n) * 7) % len(options)]
        return self.pick(options)

    def chance(self, p):
        return self.rng.random() < p

    def render(self, template):
        out = []
        self._render(parse(template), out)
        return "".join(out)

    def fragment(self, template):
        """Like `render`, for words that will stand inside a sentence."""
        out = ["-"]
        self._render(parse(template), out)
        return "".join(out)[1:]

    def _render(self, node, out):
        for part in node:
            if isinstance(part, str):
                out.append(part)
            elif part[0] == "any":
                self._render(self.pick(part[1]), out)
            else:
                _, name, attr, force = part
                value = self.cast[name]
                if attr:
                    value = getattr(value, attr)
                elif isinstance(value, list):
                    value = self.pick(value)
                elif not isinstance(value, str):
                    value = value.ref(self.rng)
                if force or starts_sentence(out):
                    value = value[0].upper() + value[1:]
                out.append(value)

    def say(self, *options):
        """Adds one of the templates as a sentence or several."""
        text = self.render(self.pick(options)).strip()
        if text and text not in self.said:
            self.said.add(text)
            text = text[0].upper() + text[1:]
            self.paragraphs[-1].append(text if text[-1] in '.!?"' else text + ".")

    def maybe(self, p, *options):
        if self.chance(p * 0.4 if self.short else p):
            self.say(*options)

    def para(self, p=0.5):
        """Starts a paragraph, or with probability 1 - p goes on in the same one."""
        if self.paragraphs[-1] and self.chance(p):
            self.paragraphs.append([])

    def text(self):
        return "\n\n".join(" ".join(p) for p in self.paragraphs if p)


def starts_sentence(out):
    tail = "".join(out[-3:])[-3:]
    return not tail.strip('"') or tail[-2:] in (". ", "! ", "? ", ' "') or tail == '." '


# --- cast ---------------------------------------------------------------------------------------


def make_animal(s, avoid=(), need="", common=0.35, named=0.6, pool=None):
    while True:
        noun = s.pick(pool or (lx.COMMON if s.chance(common) else list(lx.ANIMALS)))
        home, skills = lx.ANIMALS[noun]
        if all(noun != w.noun for w in avoid) and (not need or need in skills.split()):
            break
    gender = s.pick("mf")
    names = lx.PET_M if gender == "m" else lx.PET_F
    taken = {w.name for w in s.cast.values() if isinstance(w, Who)} | {w.name for w in avoid}
    name = s.lean(noun, [n for n in names if n not in taken]) if s.chance(named) else None
    adjs = [a for a in lx.ADJS if not (a in ("tiny", "little", "small") and "big" in skills and s.chance(0.8))]
    return Who("animal", noun, gender, name, s.lean(noun, adjs, p=0.3), home, skills)


def make_child(s):
    gender = s.pick("mf")
    name = s.pick(lx.BOYS if gender == "m" else lx.GIRLS)
    home = s.pick(
        [
            "in a small house near the park",
            "in a cottage at the edge of the woods",
            "in a little town",
            "in a house with a red door",
            "on a farm",
            "in a village by the sea",
            "in a tall house in the city",
        ]
    )
    noun = PRONOUNS[gender]["child"]
    return Who(
        "child",
        noun,
        gender,
        name,
        s.pick(["little", "little", "young", "kind", "clever", "curious", "happy", "shy", "brave", "cheerful"]),
        home,
        "run",
    )


def make_role(s):
    noun = s.pick(list(lx.ROLES))
    gender, home = lx.ROLES[noun]
    gender = gender or s.pick("mf")
    name = s.pick(lx.BOYS if gender == "m" else lx.GIRLS) if s.chance(0.4) else None
    return Who(
        "role",
        noun,
        gender,
        name,
        s.pick(["young", "kind", "old", "clever", "friendly", "lonely", "gentle", "cheerful", "little"]),
        home,
        "run",
    )


def make_hero(s):
    roll = s.rng.random()
    if roll < 0.60:
        return make_animal(s)
    return make_child(s) if roll < 0.92 else make_role(s)


def make_friend(s, *others, need="", named=0.45):
    """Another character; when it can, of the other gender, so that "he" and "she" stay clear."""
    for _ in range(4):
        near = s.lean(others[-1].name or others[-1].noun, list(lx.ANIMALS), n=4, p=0.4)
        fits = all(near != o.noun for o in others) and (not need or need in lx.ANIMALS[near][1].split())
        w = make_animal(s, others, need, common=0.25, named=named, pool=[near] if fits else None)
        if w.gender != others[0].gender:
            break
    return w


def make_elder(s, hero, family=False):
    """Somebody who gives advice: family (spoken of as "his mother") or a wise animal."""
    if family or s.chance(0.5):
        noun, gender = s.pick(lx.ELDERS_FAMILY)
        e = Who("family", noun, gender, None, "kind", "")
        e.owner = hero
        return e
    noun = s.pick([a for a in lx.ELDER_ANIMALS if a != hero.noun])
    return Who("animal", noun, s.pick("mf"), None, s.pick(lx.ADJS_OLD), "")


def make_thing(s, kind=None):
    kind = kind or s.pick(list(props.THINGS))
    looks = props.COLORS if s.chance(0.6) else props.LOOKS[kind]
    noun = s.pick(props.THINGS[kind])
    return Thing(noun, s.pick([look for look in looks if look not in noun]), kind)


def new_story(rng):
    """A story with its hero, a place, food, weather, and sometimes a pet at the hero's side."""
    s = Story(rng)
    c = s.cast
    h = c["h"] = make_hero(s)
    own = h.name or h.noun
    habitat = lx.HABITAT.get(h.noun)
    c["p"] = (
        s.pick([p for p in lx.PLACES if p.n in habitat]) if habitat and s.chance(0.7) else s.lean(own, lx.PLACES, p=0.3)
    )
    c["food"] = s.pick(lx.LIKES[h.noun]) if h.noun in lx.LIKES and s.chance(0.5) else s.pick(props.FOODS)
    c["hobby"] = s.lean(own, props.HOBBIES)
    c["spot"], c["spot2"], c["spot3"] = rng.sample(c["p"].spots, 3)
    mood = s.pick(["sunny", "sunny", "windy", "rainy", "snowy", "spring", "autumn"])
    c["weather"], c["sky"] = lx.WEATHER[mood], s.pick(lx.SKY[mood])
    plural = c["food"].endswith("s")
    c["it"] = "them" if plural else "it"
    if h.kind == "child" and s.chance(0.3):
        noun = s.pick(lx.PETS)
        gender = "f" if h.gender == "m" else "m"
        name = s.pick(lx.PET_F if gender == "f" else lx.PET_M)
        c["pet"] = Who("pet", noun, gender, name, s.pick(["little", "brown", "white", "black", "funny"]), "")
    return s


def pet(s, *options):
    """A sentence about the pet, when the story has one."""
    if "pet" in s.cast and s.chance(0.75):
        s.say(*options)


# --- shared beats -------------------------------------------------------------------------------

OPEN = [
    "Once upon a time, there was {h.intro}. {h.He} lived {h.home}",
    "Once upon a time, there was {h.intro}[ who lived {h.home}|]",
    "Once upon a time, there was {h.a} who loved to {hobby}[{h.naming}|]",
    "Once upon a time, {p.far}, there lived {h.intro}",
    "Once upon a time, {h.intro} lived {h.home}",
    "Once upon a time there was {h.plain}[{h.naming}|]. {h.He} was [very |]{h.adj} and loved to {hobby}",
    "There once was {h.intro} who lived {h.home}",
    "Once there was {h.intro}. {h.He} loved to {hobby}",
    "Long ago, {h.intro} lived {h.home}",
    "{p.Far}, there lived {h.intro}",
    "{p.Far}, {h.intro} lived with {h.his} family",
    "Far away, {h.home}, lived {h.intro}",
    "Far away, {p.far}, there was {h.intro}",
    "This is [a|the] story [about|of] {h.intro}. {h.He} lived {h.home}",
    "{h.A} lived {h.home}[{h.naming}|]",
    "Every day, {h.the} played {p.at}. {h.He} loved to {hobby}",
    "Every morning, {h.intro} [woke up early to|got up to] {hobby}",
    "Do you know the story of {h.intro}? {h.He} lived {h.home}",
]
OPEN_NAMED = [
    "{h.call} was {h.a}. {h.He} lived {h.home}",
    "{h.call} was {h.a} who loved to {hobby}",
    "{h.call} the {h.noun} lived {h.home}. {h.He} loved to {hobby}",
    "{h.call} loved to {hobby}. {h.He} was {h.a}[ who lived {h.home}|]",
    "In a small [house|village|town], there lived {h.intro}",
    "There was {h.plain} named {h.call}. {h.He} was {h.adj} and loved to {hobby}",
]
OPEN_PET = [
    "{h.call} and {h.his} {pet.noun} {pet.call} lived {h.home}. They loved to {hobby}",
    "{h.call} had {pet.a} named {pet.call}. They went everywhere together",
    "Once upon a time, there was {h.intro}. {h.He} had {pet.a} named {pet.call}",
    "Once upon a time, {h.call} and {h.his} {pet.noun} {pet.call} lived {h.home}",
    "{h.call} was {h.a}. {h.His} best friend was {pet.a} named {pet.call}",
]
OPEN_DAY = [
    "One {weather} day, {h.intro} was {p.at}",
    "One {weather} morning, {h.intro} went {p.to}",
    "One day, {h.intro} [went {p.to}|was playing {p.at}|was walking {p.at}]",
    "It was a {weather} [day|morning] {p.at}. {sky} {h.intro} was out for a walk",
    "It was a {weather} morning. {h.intro} woke up {h.home}",
    "On a {weather} morning, {h.intro} went for a walk {p.at}",
    "The sun came up over {p.n}. {h.intro} was already awake",
    '"What a {weather} day!" said {h.the}. {h.He} was {h.a}[, and {h.he} lived {h.home}|]',
    '"Good morning, world!" said {h.intro}. {h.He} lived {h.home}',
    "{h} was very happy that morning. {sky} {h.He} went {p.to}",
    "Last [summer|winter|spring|week], {h.intro} had a big adventure {p.at}",
]

DAY_TO = [
    "One {weather} [day|morning|afternoon], {h} went {p.to}",
    "In the [morning|afternoon], {h} went {p.to}",
    "It was a {weather} day. {sky} {h} went {p.to}",
    "One day, {h} decided to go {p.to}",
]
DAY_AT = [
    "One day, {h} [went for a walk|was playing|was walking] {p.at}",
    "One {weather} [day|morning], {h} was {p.at}. {sky}",
    "One {weather} [day|morning], {h} [went for a walk|was playing|was walking] {p.at}",
]


def opening(s, day=True):
    """Introduces the hero, and brings the story to "one day" at the place."""
    c = s.cast
    h = c["h"]
    named_pool = OPEN_NAMED if h.name and h.kind != "role" else []
    if "pet" in c:
        s.say(*OPEN_PET)
        started = at_place = False
    else:
        roll = s.rng.random()
        started = roll < 0.22
        line = s.pick(OPEN_DAY if started else named_pool if named_pool and roll < 0.5 else OPEN)
        at_place = "{p." in line
        s.say(line)
    choose_trait(s)
    s.maybe(
        0.35,
        "{h.He} was [very |]{trait}",
        "Everyone [liked|loved] {h.him} because {h.he} was so {trait}",
        s.lean(s.cast["h"].call if s.cast["h"].name_told else s.cast["h"].noun, props.HABITS, n=2, p=0.6),
    )
    if not started and day:
        s.para(0.4)
        s.say(*DAY_AT if at_place else DAY_AT + DAY_TO)
        pet(s, "{pet.call} [ran along beside {h.him}|came along too|went with {h.him}]")
    elif started:
        s.maybe(0.3, "{sky}")


def choose_trait(s):
    """Gives `trait` a value that differs from the adjective the story has just used."""
    adj = s.cast["h"].adj
    s.cast["trait"] = s.pick(
        [
            a
            for a in (
                "kind",
                "curious",
                "brave",
                "clever",
                "gentle",
                "friendly",
                "cheerful",
                "helpful",
                "careful",
                "funny",
            )
            if a != adj
        ]
    )


def ending(s, pair=False):
    """Thanks, the moral, and the last sentence."""
    c = s.cast
    c["moral"] = s.pick(props.MORALS[s.theme])
    s.para(0.5)
    pet(s, "{pet.call} was happy too", "{pet.call} [jumped|danced|ran around] [happily|with joy]")
    s.maybe(
        0.75,
        "{h} learned {moral}",
        "That day, {h} learned {moral}",
        "And {h} never forgot {moral}",
        "Now {h} knew {moral}",
        "{h} smiled. {h.He} had learned {moral}",
        "From then on, {h} always remembered {moral}",
    )
    if pair:
        s.maybe(
            0.7,
            "From that day on, {h} and {f} were [best|good|the best of] friends",
            "After that, {h} and {f} played together every day",
            "{h} and {f} [walked home together|watched the sun go down together|laughed and danced]",
            "They [stayed friends forever|were friends from that day on|lived happily ever after]",
            "And they were never lonely again",
        )
    else:
        s.maybe(
            0.6,
            "That night, {h} [slept very well|went to bed with a smile|fell asleep under the stars]",
            "{h} went home with a [happy|warm|full] heart",
            "{h} was [very |so ]happy",
            "And {h} lived happily ever after",
            "It was the best day [ever|of the year]",
            "{h} smiled all the way home",
        )
    if s.chance(0.3):
        s.para(0.6)
        s.say("The end")
