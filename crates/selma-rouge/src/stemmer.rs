//! The Porter stemmer as NLTK has it.
//!
//! Porter, "An algorithm for suffix stripping" (1980), with the changes of `nltk.stem.porter.PorterStemmer` in its default
//! mode `NLTK_EXTENSIONS`, which is what `rouge_score` calls.

/// Words that the rules would get wrong, with their stems (`PorterStemmer.pool`).
const IRREGULAR: [(&str, &str); 15] = [
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

/// The stem of a word of more than three lower-case ASCII letters and digits.
pub(crate) fn stem(word: &str) -> String {
    if let Some((_, stem)) = IRREGULAR.iter().find(|(irregular, _)| *irregular == word) {
        return (*stem).to_owned();
    }
    let word = step_1a(word);
    let word = step_1b(&word);
    let word = step_1c(&word);
    let word = step_2(&word);
    let word = apply(&word, &STEP_3, |stem, _| measure(stem) > 0);
    let word = apply(&word, &STEP_4, |stem, suffix| {
        measure(stem) > 1 && (suffix != "ion" || stem.ends_with(['s', 't']))
    });
    let word = step_5a(&word);
    step_5b(word)
}

/// A suffix and what it becomes.
type Rule = (&'static str, &'static str);

/// Applies the first rule whose suffix the word has, if what is left of the word meets the condition.
fn apply(word: &str, rules: &[Rule], condition: impl Fn(&str, &str) -> bool) -> String {
    for (suffix, replacement) in rules {
        if let Some(stem) = word.strip_suffix(suffix) {
            if condition(stem, suffix) {
                return format!("{stem}{replacement}");
            }
            break;
        }
    }
    word.to_owned()
}

const STEP_1A: [Rule; 4] = [("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")];

fn step_1a(word: &str) -> String {
    // NLTK: `dies` becomes `die`, while `flies` becomes `fli`.
    match word.strip_suffix("ies") {
        Some(stem) if stem.len() == 1 => format!("{stem}ie"),
        _ => apply(word, &STEP_1A, |_, _| true),
    }
}

fn step_1b(word: &str) -> String {
    // NLTK: `died` becomes `die`, `spied` `spi`.
    if let Some(stem) = word.strip_suffix("ied") {
        let ending = if stem.len() == 1 { "ie" } else { "i" };
        return format!("{stem}{ending}");
    }
    if let Some(stem) = word.strip_suffix("eed") {
        let ending = if measure(stem) > 0 { "ee" } else { "eed" };
        return format!("{stem}{ending}");
    }
    let stems = ["ed", "ing"].map(|suffix| word.strip_suffix(suffix));
    let Some(stem) = stems.into_iter().flatten().find(|stem| has_vowel(stem)) else {
        return word.to_owned();
    };
    if ["at", "bl", "iz"].iter().any(|end| stem.ends_with(end)) {
        return format!("{stem}e");
    }
    if ends_in_double_consonant(stem) {
        let halved = stem
            .get(..stem.len() - 1)
            .filter(|_| !stem.ends_with(['l', 's', 'z']));
        return halved.unwrap_or(stem).to_owned();
    }
    let ending = if measure(stem) == 1 && ends_short(stem) {
        "e"
    } else {
        ""
    };
    format!("{stem}{ending}")
}

fn step_1c(word: &str) -> String {
    // NLTK: only behind a consonant that is not the first letter.
    apply(word, &[("y", "i")], |stem, _| {
        stem.len() > 1 && consonants(stem).last() == Some(true)
    })
}

const STEP_2: [Rule; 22] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
    ("logi", "log"),
];

fn step_2(word: &str) -> String {
    // NLTK: this rule first, and then the others on what it gives.
    if let Some(stem) = word.strip_suffix("alli")
        && measure(stem) > 0
    {
        return step_2(&format!("{stem}al"));
    }
    apply(word, &STEP_2, |stem, suffix| match suffix {
        // NLTK counts the `l` as part of the stem.
        "logi" => measure(&format!("{stem}l")) > 0,
        _ => measure(stem) > 0,
    })
}

const STEP_3: [Rule; 7] = [
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
];

const STEP_4: [Rule; 19] = [
    ("al", ""),
    ("ance", ""),
    ("ence", ""),
    ("er", ""),
    ("ic", ""),
    ("able", ""),
    ("ible", ""),
    ("ant", ""),
    ("ement", ""),
    ("ment", ""),
    ("ent", ""),
    ("ion", ""),
    ("ou", ""),
    ("ism", ""),
    ("ate", ""),
    ("iti", ""),
    ("ous", ""),
    ("ive", ""),
    ("ize", ""),
];

fn step_5a(word: &str) -> String {
    apply(word, &[("e", "")], |stem, _| {
        let measure = measure(stem);
        measure > 1 || (measure == 1 && !ends_short(stem))
    })
}

fn step_5b(mut word: String) -> String {
    // NLTK: the measure is that of the word without its last letter.
    if word.ends_with("ll")
        && word
            .get(..word.len() - 1)
            .is_some_and(|stem| measure(stem) > 1)
    {
        word.pop();
    }
    word
}

/// For each letter whether it is a consonant: not a vowel, and `y` only where no consonant stands before it.
fn consonants(word: &str) -> impl Iterator<Item = bool> {
    word.bytes().scan(false, |previous, letter| {
        *previous = match letter {
            b'a' | b'e' | b'i' | b'o' | b'u' => false,
            b'y' => !*previous,
            _ => true,
        };
        Some(*previous)
    })
}

/// Porter's measure: how often a vowel is followed by a consonant.
fn measure(stem: &str) -> usize {
    let after = consonants(stem).skip(1);
    consonants(stem)
        .zip(after)
        .filter(|&pair| pair == (false, true))
        .count()
}

fn has_vowel(stem: &str) -> bool {
    consonants(stem).any(|consonant| !consonant)
}

/// Porter's condition `*d`.
fn ends_in_double_consonant(stem: &str) -> bool {
    let mut letters = stem.bytes().rev();
    let (last, before) = (letters.next(), letters.next());
    last.is_some() && last == before && consonants(stem).last() == Some(true)
}

/// Porter's condition `*o`: the end is consonant, vowel, consonant, the last not `w`, `x` or `y`; in NLTK also a word of a
/// vowel and a consonant.
fn ends_short(stem: &str) -> bool {
    let kinds: Vec<bool> = consonants(stem).collect();
    match kinds.as_slice() {
        [false, true] => true,
        [.., true, false, true] => !stem.ends_with(['w', 'x', 'y']),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stems_of_the_rules() {
        // Porter 1980, the comments of nltk/stem/porter.py, and NLTK's extensions.
        for (word, expected) in [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("flies", "fli"),
            ("dies", "die"),
            ("died", "die"),
            ("spied", "spi"),
            ("agreed", "agre"),
            ("feed", "feed"),
            ("plastered", "plaster"),
            ("sing", "sing"),
            ("conflated", "conflat"),
            ("hopping", "hop"),
            ("falling", "fall"),
            ("filing", "file"),
            ("happy", "happi"),
            ("enjoy", "enjoy"),
            ("enjoyment", "enjoy"),
            ("relational", "relat"),
            ("generally", "gener"),
            ("geology", "geolog"),
            ("hopefulness", "hope"),
            ("electricity", "electr"),
            ("adoption", "adopt"),
            ("probate", "probat"),
            ("controlling", "control"),
            ("roll", "roll"),
            ("skies", "sky"),
            ("syzygy", "syzygi"),
            ("2222", "2222"),
        ] {
            assert_eq!(stem(word), expected, "{word}");
        }
    }
}
