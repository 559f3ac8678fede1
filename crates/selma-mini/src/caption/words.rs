//! Every phrase of the grammar. Fields in braces are explained in [`template`](super::template).

/// The templates of one style.
#[derive(Debug)]
pub(super) struct Phrases {
    /// A single group.
    pub(super) one: &'static [&'static str],
    /// Two or three groups without a relation.
    pub(super) several: &'static [&'static str],
    /// Two groups and their relation.
    pub(super) relation: &'static [&'static str],
    /// The background.
    pub(super) background: &'static [&'static str],
    /// Words that say nothing about the scene.
    pub(super) extra: &'static [&'static str],
}

pub(super) const COCO: Phrases = Phrases {
    one: &[
        "{g}",
        "{picture} of {g}",
        "{g} {placed} alone",
        "there {is} {g}",
        "we see {g}",
        "{picture} with {g}",
    ],
    several: &[
        "{g}",
        "{picture} of {g}",
        "{g} {placed} together",
        "there {is} {a} near {rest}",
        "we see {a} and also {rest}",
        "{picture} with {g}",
        "{a} {placed} near {rest}",
    ],
    relation: &[
        "{a} {rel} {b}",
        "{a} {is} {rel} {b}",
        "{a} {placed} {rel} {b}",
        "there {is} {a} {rel} {b}",
        "{picture} of {a} {rel} {b}",
        "{a} can be seen {rel} {b}",
        "{inv} {a} {are_b} {b}",
        "{a} {at_a} and {b} {at_b}",
        "{at_a} {is} {a} and {at_b} {are_b} {b}",
    ],
    background: &[
        "on a {plain} {bg} background",
        "against a {plain} {bg} background",
        "in front of a {plain} {bg} wall",
        "with a {bg} background",
        "on a {bg} backdrop",
        "against a {bg} backdrop",
    ],
    extra: &[],
};

pub(super) const WHOOPS: Phrases = Phrases {
    one: &[
        "{g} {placed} alone",
        "a strange picture of {g}",
        "an unusual scene with {g}",
        "surprisingly there {is} {g}",
        "it is odd to see {g}",
        "nobody expected {g}",
        "{g} floating in the air",
        "{g}",
    ],
    several: &[
        "{a} {placed} near {rest}",
        "a strange picture of {g}",
        "an unusual scene with {g}",
        "surprisingly there {is} {a} near {rest}",
        "it is odd to see {g}",
        "nobody expected {g}",
        "{g} floating in the air",
    ],
    relation: &[
        "{a} floating {rel} {b}",
        "{a} {placed} {rel} {b}",
        "a strange picture of {a} {rel} {b}",
        "an unusual scene with {a} {rel} {b}",
        "surprisingly {a} {is} {rel} {b}",
        "it is odd to see {a} {rel} {b}",
        "nobody expected {a} {rel} {b}",
        "{inv} {a} {are_b} {b}",
    ],
    background: COCO.background,
    extra: &[],
};

pub(super) const COUNT: Phrases = Phrases {
    one: &[
        "{g}",
        "a set of {g}",
        "a group of {g}",
        "a collection of {g}",
        "exactly {g}",
        "image showing {g}",
        "photo of {g}",
        "{picture} with exactly {g}",
        "there {is} {g}",
        "{g} {placed} together",
        "{g} arranged neatly",
        "icons of {g}",
    ],
    several: &[
        "{a} and {rest}",
        "a set of {a} and {rest}",
        "a group of {a} with {rest}",
        "image showing {a} and {rest}",
        "photo of {a} together with {rest}",
        "exactly {a} and exactly {rest}",
        "there {is} {a} and {rest}",
        "{a} next to {rest}",
        "icons of {a} and {rest}",
    ],
    relation: &[
        "{a} {rel} {b}",
        "image showing {a} {rel} {b}",
        "photo of {a} {rel} {b}",
        "exactly {a} {rel} {b}",
        "{a} {at_a} and {b} {at_b}",
    ],
    background: &[
        "isolated on a {bg} background",
        "on a {plain} {bg} background",
        "against a {bg} backdrop",
        "in front of a {bg} wall",
    ],
    extra: &[
        "vector illustration",
        "stock photo",
        "clip art",
        "flat icons",
        "hand drawn",
        "counting game for kids",
        "easy to count",
        "simple geometric set",
    ],
};

/// Two of a kind, in front of whatever else there is.
pub(super) const COUNT_PAIR: &[&str] = &[
    "a pair of {bare} {and_rest}",
    "image showing a pair of {bare} {and_rest}",
    "{g}",
    "exactly {g}",
    "a set of {g}",
    "there {is} {g}",
];

pub(super) const NARRATIVE: Phrases = Phrases {
    one: &[
        "{open} {g}",
        "{open} {g} which {is} {placed} alone",
        "{open} {g} {placed} there",
    ],
    several: &[
        "{open} {g}",
        "{open} {a}. {also} {rest}",
        "{open} {a}. next to {it} {see_b} {rest}",
        "{open} {a} and beside {it} {see_b} {rest}",
    ],
    relation: &[
        "{open} {a} {rel} {b}",
        "{open} {a} which {is} {placed} {rel} {b}",
        "{open} {a} {at_a} {of_image} and {b} {at_b} {of_image}",
        "{at_a} {of_image} {see_a} {a}. {at_b} {of_image} {see_b} {b}",
        "{open} {a}. {inv} {it} {see_b} {b}",
        "{open} {a} and {inv} {it} {see_b} {b}",
    ],
    background: &[
        "the background is {bg}",
        "the background of the image is {plain} {bg}",
        "in the background we can see a {bg} wall",
        "in the background there is a {plain} {bg} wall",
        "the backdrop is {bg} in color",
        "everything is on a {bg} background",
        "behind everything there is a {bg} wall",
    ],
    extra: &[
        "the image is simple and clear",
        "the edges are sharp",
        "it looks like a drawing",
        "this looks like a poster",
        "the picture looks clean",
        "the colors are bright",
        "the rest of the image is empty",
        "the light is even",
        "nothing else can be seen",
        "it is a digital picture",
    ],
};

pub(super) const TAGS: Phrases = Phrases {
    one: &[
        "{g}",
        "{art} of {g}",
        "{g} floating",
        "{g}, cute",
        "{g} with sharp edges",
    ],
    several: &["{g}", "{art} of {g}", "{a} and {rest}", "{a} with {rest}"],
    relation: &[
        "{a} {rel} {b}",
        "{art} of {a} {rel} {b}",
        "{a} floating {rel} {b}",
        "{a} {at_a}, {b} {at_b}",
    ],
    background: &[
        "{bg} background",
        "on a {bg} background",
        "{bg} backdrop",
        "{plain} {bg} background",
    ],
    extra: &[
        "highly detailed",
        "vector art",
        "trending on artstation",
        "4k",
        "8k",
        "digital art",
        "flat design",
        "minimalist",
        "sharp focus",
        "octane render",
        "studio lighting",
        "concept art",
        "illustration",
        "smooth",
        "symmetrical",
        "centered composition",
        "geometric",
        "clean lines",
        "vivid colors",
        "masterpiece",
        "matte",
        "cinematic lighting",
        "intricate",
        "elegant",
        "unreal engine",
        "pixel perfect",
        "soft light",
        "modern poster",
    ],
};

pub(super) const SMALL: &[&str] = &["small", "small", "small", "tiny"];
pub(super) const LARGE: &[&str] = &["large", "large", "large", "big"];
pub(super) const JOIN_TWO: &[&str] = &["and", "and", "with", "next to", "beside"];
pub(super) const LEFT_OF: &[&str] = &[
    "to the left of",
    "to the left of",
    "left of",
    "on the left side of",
];
pub(super) const RIGHT_OF: &[&str] = &[
    "to the right of",
    "to the right of",
    "right of",
    "on the right side of",
];
pub(super) const ABOVE: &[&str] = &["above", "above", "over"];
pub(super) const BELOW: &[&str] = &["below", "below", "under", "beneath"];
pub(super) const AT_LEFT: &[&str] = &["on the left", "on the left side"];
pub(super) const AT_RIGHT: &[&str] = &["on the right", "on the right side"];
pub(super) const AT_TOP: &[&str] = &["at the top", "in the upper part"];
pub(super) const AT_BOTTOM: &[&str] = &["at the bottom", "in the lower part"];

/// The fillers of a field that has no meaning of its own; empty for an unknown name.
pub(super) fn filler(name: &str) -> &'static [&'static str] {
    FILLERS
        .iter()
        .find(|(field, _)| *field == name)
        .map_or(&[], |(_, fillers)| fillers)
}

pub(super) const FILLERS: &[(&str, &[&str])] = &[
    (
        "picture",
        &[
            "a picture",
            "an image",
            "a drawing",
            "a view",
            "a simple scene",
            "a photo",
        ],
    ),
    (
        "placed",
        &[
            "placed", "sitting", "resting", "standing", "floating", "drawn", "painted", "shown",
        ],
    ),
    ("plain", &["", "", "plain", "flat", "simple", "solid"]),
    (
        "open",
        &[
            "in this image we can see",
            "in this picture we can see",
            "here we can see",
            "in this image i can see",
            "this image shows",
            "this picture contains",
            "in the image there {is}",
            "this is a drawing in which we can see",
            "in this drawing we can find",
        ],
    ),
    (
        "also",
        &[
            "we can also see",
            "along with that we can see",
            "there i can also see",
            "also there {are_b}",
        ],
    ),
    (
        "see_a",
        &["we can see", "there {is}", "i can see", "we find"],
    ),
    (
        "see_b",
        &["we can see", "there {are_b}", "i can see", "we find"],
    ),
    (
        "art",
        &[
            "a detailed illustration",
            "a beautiful painting",
            "a render",
            "a vibrant poster",
            "a logo",
        ],
    ),
];
