//! Making a study.

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use sha2::{Digest, Sha256};

use super::{
    Key, KeyFormat, KeyPair, StudyPrompt,
    page::{self, PagePair},
    picture::Picture,
    prompt::repeated,
};
use crate::{EvalError, ImageSource, stats::draw::shuffle};

/// How a study is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StudyOptions {
    /// What raters see above everything; "Which picture fits the text better?".
    pub title: String,
    /// Seed of all that is random; 0.
    pub seed: u64,
    /// How many prompts to take at random, if not all. The paper took 200.
    pub prompts: Option<usize>,
    /// Longer edge in pixels to which larger pictures are reduced; 512.
    pub edge: u32,
}

impl Default for StudyOptions {
    fn default() -> Self {
        Self {
            title: "Which picture fits the text better?".to_owned(),
            seed: 0,
            prompts: None,
            edge: 512,
        }
    }
}

/// A page for raters, and the key to read their answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Study {
    /// The page: one HTML file with all pictures in it, which needs no network.
    pub page: String,
    /// Who drew what.
    pub key: Key,
}

impl Study {
    /// Puts the pictures of every two models beside each other, prompt by prompt, in a random order and on random sides, each
    /// of two models on the left as often as on the right. The same models, prompts, pictures and options give the same bytes.
    ///
    /// `models` are names with the pictures they drew. Neither the names nor the ids and categories of prompts are in the
    /// page.
    ///
    /// # Errors
    /// [`EvalError::Empty`] without prompts; [`EvalError::Setting`] for fewer than two models, two of one name, two prompts
    /// of one id, an edge of 0, or more prompts asked for than there are; what [`ImageSource`] returns for a picture that
    /// is missing or broken; [`EvalError::Encode`].
    pub fn new(
        models: &[(&str, &dyn ImageSource)],
        prompts: &[StudyPrompt],
        options: &StudyOptions,
    ) -> Result<Self, EvalError> {
        check(models, prompts, options)?;
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        let chosen = choose(&mut rng, prompts, options.prompts);
        for prompt in &chosen {
            for (_, images) in models {
                images.check(&prompt.id)?;
            }
        }
        let pictures = encode(models, &chosen, options.edge)?;
        let mut pairs = pair_up(&mut rng, models, chosen.len());
        shuffle(&mut rng, &mut pairs);

        let mut key = Key {
            format: KeyFormat::V1,
            study: String::new(),
            title: options.title.clone(),
            seed: options.seed,
            models: models
                .iter()
                .map(|(model, _)| (*model).to_owned())
                .collect(),
            pairs: Vec::new(),
        };
        let mut shown = Vec::new();
        let pairs = pairs.into_iter();
        let pairs = pairs.filter_map(|pair| Some((chosen.get(pair.prompt)?, pair.sides)));
        for (prompt, [(left, left_picture), (right, right_picture)]) in pairs {
            key.pairs.push(KeyPair {
                item: prompt.id.clone(),
                text: prompt.text.clone(),
                category: prompt.category.clone(),
                left: left.to_owned(),
                right: right.to_owned(),
            });
            shown.push(PagePair {
                text: &prompt.text,
                left: left_picture,
                right: right_picture,
            });
        }
        key.study = id(&key, &pictures);
        let page = page::render(&key.study, &key.title, &pictures, &shown);
        Ok(Self { page, key })
    }
}

fn check(
    models: &[(&str, &dyn ImageSource)],
    prompts: &[StudyPrompt],
    options: &StudyOptions,
) -> Result<(), EvalError> {
    let wrong = |name, expected, found: String| {
        Err(EvalError::Setting {
            name,
            expected,
            found,
        })
    };
    if models.len() < 2 {
        return wrong("models", "at least two", models.len().to_string());
    }
    for (index, (name, _)) in models.iter().enumerate() {
        if models.iter().take(index).any(|(other, _)| other == name) {
            return wrong("models", "different names", format!("{name} twice"));
        }
    }
    if prompts.is_empty() {
        return Err(EvalError::Empty { what: "prompts" });
    }
    if let Some(id) = repeated(prompts) {
        return wrong("prompts", "different ids", format!("{id} twice"));
    }
    if options.edge == 0 {
        return wrong("edge", "at least 1 pixel", "0".to_owned());
    }
    match options.prompts {
        Some(count) if count == 0 || count > prompts.len() => wrong(
            "prompts",
            "at least one and no more than there are",
            format!("{count} of {}", prompts.len()),
        ),
        _ => Ok(()),
    }
}

/// Some of the prompts at random, in the order given.
fn choose<'a>(
    rng: &mut ChaCha8Rng,
    prompts: &'a [StudyPrompt],
    count: Option<usize>,
) -> Vec<&'a StudyPrompt> {
    let Some(count) = count else {
        return prompts.iter().collect();
    };
    let mut chosen: Vec<(usize, &StudyPrompt)> = prompts.iter().enumerate().collect();
    shuffle(rng, &mut chosen);
    chosen.truncate(count);
    chosen.sort_by_key(|(index, _)| *index);
    chosen.into_iter().map(|(_, prompt)| prompt).collect()
}

/// The pictures of all models for each prompt, prompt by prompt.
fn encode(
    models: &[(&str, &dyn ImageSource)],
    prompts: &[&StudyPrompt],
    edge: u32,
) -> Result<Vec<Picture>, EvalError> {
    let mut pictures = Vec::with_capacity(prompts.len() * models.len());
    for prompt in prompts {
        for (model, images) in models {
            let picture = Picture::new(&images.load(&prompt.id)?, edge);
            pictures.push(picture.map_err(|source| EvalError::Encode {
                item: prompt.id.clone(),
                model: (*model).to_owned(),
                source: Box::new(source),
            })?);
        }
    }
    Ok(pictures)
}

/// Two models' pictures of one prompt.
struct Pair<'a> {
    /// Position of the prompt.
    prompt: usize,
    /// Model and position of its picture, left and right.
    sides: [(&'a str, usize); 2],
}

/// Every two models on every prompt, in order, on random sides.
fn pair_up<'a>(
    rng: &mut ChaCha8Rng,
    models: &[(&'a str, &dyn ImageSource)],
    prompts: usize,
) -> Vec<Pair<'a>> {
    let mut pairs = Vec::new();
    for (a, &(model_a, _)) in models.iter().enumerate() {
        for (b, &(model_b, _)) in models.iter().enumerate().skip(a + 1) {
            // Each on the left of one half of the pairs, so that a rater's favourite side favours neither.
            let mut reversed: Vec<bool> = (0..prompts).map(|number| number % 2 == 1).collect();
            shuffle(rng, &mut reversed);
            for (prompt, reversed) in reversed.into_iter().enumerate() {
                let first = prompt * models.len();
                let mut sides = [(model_a, first + a), (model_b, first + b)];
                if reversed {
                    sides.reverse();
                }
                pairs.push(Pair { prompt, sides });
            }
        }
    }
    pairs
}

/// The first 16 digits of a hash of everything in the study.
fn id(key: &Key, pictures: &[Picture]) -> String {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        // The length before each text, so that no two lists of texts are hashed alike.
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    add(&key.title);
    add(&key.seed.to_string());
    key.models.iter().for_each(|model| add(model));
    for pair in &key.pairs {
        for text in [&pair.item, &pair.text, &pair.left, &pair.right] {
            add(text);
        }
        add(pair.category.as_deref().unwrap_or_default());
    }
    pictures.iter().for_each(|picture| add(&picture.uri));
    hex::encode(hash.finalize()).chars().take(16).collect()
}
