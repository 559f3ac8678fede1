//! The training world: endless scenes with captions, some of which are wrong.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::caption::{caption, parse_caption};
use crate::corrupt::{corrupt, mix_up};
use crate::scene::layout;
use crate::{MiniError, Partition, Scene, SceneSpec, Style, sample_spec};

/// How many of a thousand captions are of each style, in the order of [`Style::ALL`]: what [`Style::Whoops`] is
/// about is all but absent.
pub const STYLE_PER_MILLE: [u32; 5] = [320, 210, 210, 250, 10];

/// An endless training set. Item `i` depends on the seed and `i` alone, so items can be made in any order, on any
/// number of threads.
///
/// No specification of the held-out parts ([`SceneSpec::partition`]) occurs, neither in a scene nor in what a wrong
/// caption happens to say.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingWorld {
    /// The seed of everything.
    pub seed: u64,
    /// The share of captions that are wrong or incomplete, 0 to 1; see [`corrupt`].
    pub caption_noise: f64,
    /// The share of statements in which a thing is taken for one that is like it, 0 to 1; see [`mix_up`].
    pub mix_ups: f64,
}

/// One scene with its caption.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingItem {
    /// The scene, for [`render`](crate::render).
    pub scene: Scene,
    /// What is true of the scene.
    pub spec: SceneSpec,
    /// The style of the caption.
    pub style: Style,
    /// The caption, true or not.
    pub caption: String,
}

impl TrainingWorld {
    /// The item at `index`.
    ///
    /// # Errors
    /// None for what this crate samples; those of [`layout`].
    pub fn item(&self, index: u64) -> Result<TrainingItem, MiniError> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(index);
        let style = draw_style(&mut rng);
        let spec = loop {
            let spec = sample_spec(style, &mut rng);
            if spec.partition() == Partition::Train {
                break spec;
            }
        };
        let scene = layout(&spec, &mut rng)?;
        let mut said = mix_up(&spec, self.mix_ups, &mut rng);
        if said.partition() != Partition::Train {
            said = spec.clone();
        }
        let clean = caption(&said, style, &mut rng);
        let noisy = corrupt(&said, style, &clean, self.caption_noise, &mut rng);
        let leaks = parse_caption(&noisy).is_some_and(|said| said.partition() != Partition::Train);
        Ok(TrainingItem {
            scene,
            spec,
            style,
            caption: if leaks { clean } else { noisy },
        })
    }

    /// The items from index 0 on, without end.
    pub fn iter(&self) -> impl Iterator<Item = Result<TrainingItem, MiniError>> + use<> {
        let world = *self;
        (0..).map(move |index| world.item(index))
    }
}

fn draw_style(rng: &mut ChaCha8Rng) -> Style {
    let mut draw = rng.random_range(0..STYLE_PER_MILLE.iter().sum::<u32>());
    for (&style, weight) in Style::ALL.iter().zip(STYLE_PER_MILLE) {
        if draw < weight {
            return style;
        }
        draw -= weight;
    }
    Style::Coco
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORLD: TrainingWorld = TrainingWorld {
        seed: 5,
        caption_noise: 0.4,
        mix_ups: 0.4,
    };

    #[test]
    fn items_are_independent_of_order() {
        let in_order: Vec<_> = WORLD.iter().take(20).map(Result::unwrap).collect();
        for index in (0..20_usize).rev() {
            assert_eq!(WORLD.item(index as u64).unwrap(), in_order[index]);
        }
        assert_ne!(in_order[0], in_order[1]);
        assert_ne!(
            TrainingWorld { seed: 6, ..WORLD }.item(0).unwrap(),
            in_order[0]
        );
    }

    #[test]
    fn nothing_held_out_is_shown_or_said_and_little_is_unusual() {
        let mut unusual = 0;
        for item in WORLD.iter().take(5000).map(Result::unwrap) {
            assert_eq!(item.spec.partition(), Partition::Train);
            if let Some(said) = parse_caption(&item.caption) {
                assert_eq!(said.partition(), Partition::Train, "{}", item.caption);
            }
            unusual += u32::from(item.spec.is_unusual());
        }
        assert!((20..=90).contains(&unusual), "{unusual} of 5000");
    }

    #[test]
    fn without_noise_every_caption_is_true() {
        let world = TrainingWorld {
            caption_noise: 0.0,
            mix_ups: 0.0,
            ..WORLD
        };
        for item in world.iter().take(500).map(Result::unwrap) {
            assert_eq!(parse_caption(&item.caption), Some(item.spec));
        }
    }
}
