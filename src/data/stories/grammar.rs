//! The story grammar: three plots, their sentences, and the words that fill them.
//!
//! A sentence is a template. A name in braces is a slot: it takes a word of its list where it first appears in a story and
//! repeats that choice wherever it appears again, so that the lantern which was lost is the lantern which is found. A capital
//! (`{He}`) makes the word begin with one. A list may have several columns, which are chosen together: `Mira` brings `she`
//! and `her` along, and what somebody dreams of brings along how the dream comes true.
//!
//! Every choice is uniform. To extend the grammar, add a word or a sentence: the tests say whether it still reads
//! unambiguously. A sentence ends in `.`, `!` or `?`, with or without a closing quote, and has no such end inside that is
//! followed by a capital. Words after the article "a" begin with a consonant.

/// Words that may fill a slot.
pub(super) struct List {
    /// The slots that the list fills, one per column, separated by `|`.
    pub slots: &'static str,
    /// The words, with their columns separated by `|`.
    pub words: &'static [&'static str],
}

pub(super) const fn list(slots: &'static str, words: &'static [&'static str]) -> List {
    List { slots, words }
}

/// The sentences of which a story takes one at this point; the empty sentence leaves the point out.
pub(super) type Beat = &'static [&'static str];

/// The courses that a story can take, each a sequence of beats.
pub(super) const PLOTS: &[&[Beat]] = &[
    &[OPENING, TREASURE, LOSS, SEARCH, HELPER, HINT, FOUND, THANKS, KEPT],
    &[OPENING, DREAM, DOUBT, HELPER, ADVICE, PRACTICE, SUCCESS, THANKS, PROUD],
    &[OPENING, NEED, ROAD, TROUBLE, RESCUE, REWARD, RETURN, GIVEN],
];

const OPENING: Beat = &[
    "Once, {home}, there lived a {trait} {kind} named {hero}.",
    "{Hero} was a {trait} {kind} who lived {home}.",
    "Long ago a {trait} {kind} called {hero} lived {home}.",
    "There was once a {trait} {kind}, {hero}, who lived {home}.",
    "This is the story of {hero}, a {trait} {kind} who lived {home}.",
];

// Something dear is lost and found.

const TREASURE: Beat = &[
    "{His} dearest treasure was a {look} {thing} from {his} {kin}.",
    "More than anything {he} loved a {look} {thing} that {his} {kin} had made.",
    "{He} owned one fine thing, the {look} {thing} of {his} {kin}.",
    "Wherever {he} went, {he} carried the {look} {thing} of {his} {kin}.",
];

const LOSS: Beat = &[
    "But one {weather} {day} it was gone, for {cause}.",
    "One {weather} {day} {he} put it down, and {cause}.",
    "One {weather} {day} {he} looked away, and {cause}.",
];

const SEARCH: Beat = &[
    "{He} searched {indoors} and found only {junk}.",
    "{He} looked {indoors}, but there was only {junk}.",
    "{He} looked {indoors} and found nothing but {junk}.",
    "\"Where can it be?\" said {hero}, and looked {indoors}.",
];

const HINT: Beat = &[
    "\"Look {spot},\" said the {helper}, \"for {reason}.\"",
    "\"I would look {spot},\" said the {helper}, \"for {reason}.\"",
    "The {helper} said, \"Go and look {spot}, for {reason}.\"",
];

const FOUND: Beat = &[
    "{He} ran, and there was the {thing}, {trace}.",
    "And there it lay, {trace}.",
    "{He} went to see, and there it was, {trace}.",
];

const KEPT: Beat = &[
    "From that day on it was always {safe}.",
    "That night the {thing} slept {safe}, and {he} slept too.",
    "Now it lives {safe}, and {hero} {habit}.",
    "{He} put it {safe}, and to this day {he} {habit}.",
];

// A dream comes true by patience.

const DREAM: Beat = &[
    "{He} had only one wish, to {dream}.",
    "Every night {he} dreamed that {he} could {dream}.",
    "\"One day I will {dream},\" {he} told {his} {kin}.",
    "{His} {kin} knew that {he} longed to {dream}.",
];

const DOUBT: Beat = &["But {doubt}, and {he} {gloom}.", "Alas, {doubt}, so {he} {gloom}.", "{He} {gloom}, because {doubt}."];

const ADVICE: Beat = &[
    "\"{Advice},\" said the {helper}, \"and {promise}.\"",
    "\"{Advice}, and {promise},\" said the {helper}.",
    "The {helper} said, \"{Advice}, and {promise}.\"",
];

const PRACTICE: Beat = &[
    "So {he} practiced {spot} for {span}.",
    "For {span} they practiced {spot}.",
    "They practiced {spot} for {span}, and nobody laughed.",
];

const SUCCESS: Beat = &[
    "Then, one {weather} {day}, {he} {deed}.",
    "And one {weather} {day} {hero} {deed}.",
    "At last, on a {weather} {day}, {he} {deed}.",
];

const PROUD: Beat = &[
    "{His} {kin} was so proud that {he} got {prize}.",
    "That night {he} got {prize}, and to this day {he} {habit}.",
    "Now others come to {hero} for help, and {he} {habit}.",
    "And {hero} and the {helper} shared {prize}.",
];

// A good deed on the road brings home a gift.

const NEED: Beat = &[
    "{His} {kin} wished for a {look} {thing}, but {he} had only {junk}.",
    "{He} wanted to give {his} {kin} a {look} {thing}, but had only {junk}.",
    "\"If only I had a {look} {thing},\" {his} {kin} often said.",
];

const ROAD: Beat = &[
    "So one {weather} {day} {he} set out with {food}.",
    "One {weather} {day} {he} packed {food} and set out to find one.",
    "On a {weather} {day} {he} took {food} and went to look for one.",
];

const TROUBLE: Beat = &[
    "On the road {he} met a {manner} {helper} that {trouble}.",
    "Not far away, {spot}, {he} found a {manner} {helper} that {trouble}.",
    "\"Please help me!\" cried a {manner} {helper} that {trouble}.",
];

const RESCUE: Beat = &["{Hero} did not think twice and {rescue}.", "At once {he} {rescue}.", "So {he} {rescue}."];

const REWARD: Beat = &[
    "\"{Proverb},\" said the {helper}, and gave {him} a {thing}.",
    "The {helper} said, \"{Proverb},\" and pulled out a {thing}.",
    "\"{Proverb},\" said the {helper}, \"so take this {thing}.\"",
];

const RETURN: Beat = &["{He} ran home and hid it {safe}.", "{He} carried it home with great care.", ""];

const GIVEN: Beat = &[
    "{His} {kin} laughed and cried, and they shared {prize}.",
    "{His} {kin} loved it, and to this day {he} {habit}.",
    "And so the {kin} got a gift, and {hero} got a friend.",
];

// Shared by the first two.

const HELPER: Beat = &[
    "Then a {manner} {helper} came along {with}.",
    "Just then a {manner} {helper} stopped by {with}.",
    "That night a {manner} {helper} knocked at the door {with}.",
    "{He} told a {manner} {helper}, who sat there {with}.",
];

const THANKS: Beat = &["{Hero} gave the {helper} {food}.", "{He} thanked it with {food}.", "It asked only for {food}.", ""];

/// The words. Slots of one list are chosen together.
pub(super) const LISTS: &[List] = &[
    list(
        "hero|he|his|him",
        &[
            "Greta|she|her|her",
            "Lotte|she|her|her",
            "Mira|she|her|her",
            "Nell|she|her|her",
            "Rosa|she|her|her",
            "Bruno|he|his|him",
            "Emil|he|his|him",
            "Finn|he|his|him",
            "Otto|he|his|him",
            "Theo|he|his|him",
        ],
    ),
    list(
        "kind",
        &[
            "baker",
            "bear",
            "clockmaker",
            "cobbler",
            "doctor",
            "farmer",
            "fox",
            "gardener",
            "hare",
            "juggler",
            "miller",
            "monkey",
            "mouse",
            "otter",
            "painter",
            "poet",
            "sailor",
            "shepherd",
            "soldier",
            "squirrel",
            "tailor",
            "teacher",
            "weaver",
            "wolf",
        ],
    ),
    list(
        "trait",
        &[
            "brave",
            "careful",
            "cheerful",
            "clever",
            "curious",
            "dreamy",
            "forgetful",
            "gentle",
            "daring",
            "lively",
            "lonely",
            "nervous",
            "noisy",
            "patient",
            "proud",
            "quiet",
            "restless",
            "shy",
            "stubborn",
            "thoughtful",
            "tidy",
            "young",
            "thin",
        ],
    ),
    list(
        "home",
        &[
            "at the edge of a forest",
            "behind a waterfall",
            "by the sea",
            "in a crooked house",
            "in a lighthouse",
            "in a mill",
            "in a valley of apple trees",
            "in a windy tower",
            "near the old bridge",
            "on a blue boat",
            "on an island",
            "under an oak",
            "on a mountain",
            "in a tiny village",
            "between two rivers",
            "beside a lake",
            "above a bakery",
            "in a cave",
            "in a train station",
            "behind a church",
        ],
    ),
    list("kin", &["aunt", "brother", "cousin", "father", "grandfather", "grandmother", "mother", "neighbor", "sister", "uncle"]),
    list(
        "look",
        &[
            "blue", "copper", "crooked", "golden", "green", "heavy", "little", "painted", "paper", "red", "round", "shiny",
            "silver", "striped", "white", "wooden", "yellow",
        ],
    ),
    list("thing", &["bell", "clock", "drum", "fiddle", "kite", "lantern", "mirror", "ring", "spoon", "teapot"]),
    list(
        "weather",
        &[
            "bright", "chilly", "cold", "dark", "foggy", "gray", "lovely", "mild", "misty", "rainy", "snowy", "still", "stormy",
            "sunny", "warm", "windy",
        ],
    ),
    list("day", &["afternoon", "day", "evening", "Friday", "Monday", "morning", "Saturday", "Sunday", "Thursday", "Tuesday"]),
    list(
        "cause|trace",
        &[
            "a goat ran off with it|where the goat had left it",
            "a magpie stole it|where the magpie had hidden it",
            "it rolled downhill|where it had rolled to a stop",
            "it vanished in the fog|where the fog had let it go",
            "the moon borrowed it|where the moon had put it back",
            "the river took it|where the water had washed it up",
            "the wind took it|where the wind had dropped it",
            "two ants stole it|where the ants had moved in",
        ],
    ),
    list(
        "indoors",
        &[
            "behind the stove",
            "in every drawer",
            "in the attic",
            "in the cellar",
            "in the garden",
            "on the roof",
            "under the bed",
            "under the stairs",
            "in the pantry",
            "in both boots",
        ],
    ),
    list(
        "junk",
        &[
            "a bent nail",
            "a button",
            "a bent fork",
            "a dry leaf",
            "a ball of string",
            "a piece of chalk",
            "a spider",
            "an old shoe",
            "half a pencil",
            "three beans",
        ],
    ),
    list("helper", &["beetle", "crow", "frog", "goose", "hedgehog", "owl", "snail", "toad"]),
    list(
        "manner",
        &[
            "busy",
            "fat",
            "friendly",
            "grumpy",
            "hungry",
            "jolly",
            "merry",
            "modest",
            "polite",
            "sleepy",
            "small",
            "talkative",
            "tired",
            "wet",
            "wrinkled",
            "wise",
        ],
    ),
    list(
        "with",
        &[
            "with a book",
            "with a candle",
            "with a flower",
            "with a pipe",
            "with a suitcase",
            "with a song",
            "with a stick",
            "with an umbrella",
            "with muddy feet",
            "with a smile",
            "with a ladder",
            "with a letter",
            "with a cough",
            "with a sigh",
        ],
    ),
    list(
        "spot",
        &[
            "among the roses",
            "behind the barn",
            "beside the well",
            "between two stones",
            "by the garden gate",
            "in the tall grass",
            "near the beehives",
            "on the haystack",
            "under the bridge",
            "under the plum tree",
            "where the road ends",
            "on the hill",
        ],
    ),
    list(
        "reason",
        &[
            "I saw it shine",
            "lost things like it there",
            "my nose is never wrong",
            "nobody ever looks there",
            "I would hide there",
            "the bees talk about it",
            "the grass has a secret",
            "I once lost a hat there",
        ],
    ),
    list(
        "safe",
        &[
            "above the door",
            "beside the bed",
            "by the fire",
            "in a box",
            "in the kitchen",
            "near the window",
            "on the shelf",
            "under the pillow",
        ],
    ),
    list(
        "habit",
        &[
            "dances in the rain",
            "hums at work",
            "sings to the moon",
            "sleeps like a stone",
            "tells this story",
            "waves at every bird",
        ],
    ),
    list(
        "dream|deed",
        &[
            "bake a pie|baked a perfect pie",
            "build a bridge|walked across a new bridge",
            "catch a star|caught a star in a bucket",
            "climb the hill|waved from the top of the hill",
            "dance on the ice|danced like a leaf on the ice",
            "fly above the clouds|floated off in a balloon",
            "see the ocean|stood before the ocean",
            "sing for the queen|sang until the queen wept",
            "swim like a fish|swam across the lake",
            "talk with the stars|talked with the stars until sunrise",
        ],
    ),
    list(
        "doubt",
        &[
            "everyone said it was impossible",
            "it was harder than it looked",
            "it went wrong every time",
            "nobody knew how it was done",
            "such things take courage",
            "the whole town laughed",
        ],
    ),
    list(
        "gloom",
        &[
            "almost gave up",
            "could not sleep",
            "grew very quiet",
            "hid under a blanket",
            "sat on a stone and sighed",
            "was close to tears",
        ],
    ),
    list(
        "advice",
        &[
            "be slow like the moon",
            "begin before you are ready",
            "fall down and laugh",
            "forget what they say",
            "listen before you hurry",
            "start with the smallest part",
            "take one step each day",
            "try it with your eyes closed",
        ],
    ),
    list(
        "promise",
        &[
            "I will help you",
            "the rest will follow",
            "you will be surprised",
            "you will see",
            "your feet will learn",
            "your heart will know",
        ],
    ),
    list("span", &["a whole winter", "forty mornings", "half a year", "one long summer", "seven days", "three weeks"]),
    list("prize", &["a big kiss", "a crown of daisies", "a day without chores", "a plum cake", "a new pair of boots", "a song"]),
    list(
        "food",
        &[
            "a bag of nuts",
            "a bowl of soup",
            "a jar of honey",
            "a piece of cheese",
            "a pot of tea",
            "a slice of bread",
            "a warm bun",
            "a red apple",
            "a stack of pancakes",
            "a plum",
            "a carrot",
            "a bag of pears",
            "a boiled potato",
            "a peach",
            "a cookie",
            "a cup of milk",
        ],
    ),
    list(
        "trouble|rescue",
        &[
            "could not cross the stream|laid a log across it",
            "had a heavy sack|carried the sack uphill",
            "had a thorn in its foot|drew out the thorn",
            "was in a deep hole|let down a rope",
            "had lost its way|drew a map of the valley",
            "was caught in a net|cut the net",
            "was cold|lit a fire",
            "was stuck in the mud|pulled until it came free",
        ],
    ),
    list(
        "proverb",
        &[
            "a kind heart is never poor",
            "good deeds have long legs",
            "I never forget a friend",
            "small paws do great things",
            "what you give comes back",
            "you have been good to me",
        ],
    ),
];
