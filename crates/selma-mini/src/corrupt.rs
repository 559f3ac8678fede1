//! The web's noise: captions that are wrong or incomplete.

use rand::{Rng, RngExt};

use crate::caption::caption;
use crate::scene::pick;
use crate::{Background, Colour, Relation, SceneSpec, Shape, Style};

/// With probability `rate` a caption that is wrong or incomplete, else `clean` as it is.
///
/// A wrong caption says, in the same style, one thing that is not so: a colour, a shape, a count, the relation (its
/// opposite or another one), or the background. An incomplete one lacks a group, or lacks each word with probability
/// 0.3. Half of the noise is of the first kind. `clean` is a caption of `spec` in `style`; a rate outside `[0, 1]` is
/// clamped.
pub fn corrupt(
    spec: &SceneSpec,
    style: Style,
    clean: &str,
    rate: f64,
    rng: &mut impl Rng,
) -> String {
    if !rng.random_bool(rate.clamp(0.0, 1.0)) {
        return clean.to_owned();
    }
    let wrong = if rng.random_bool(0.5) {
        falsify(spec, rng)
    } else if rng.random_bool(0.4) {
        drop_group(spec, rng)
    } else {
        None
    };
    match wrong {
        Some(wrong) => caption(&wrong, style, rng),
        None => drop_words(clean, rng),
    }
}

/// A specification that differs from `spec` in one stated thing.
fn falsify(spec: &SceneSpec, rng: &mut impl Rng) -> Option<SceneSpec> {
    for _ in 0..20 {
        let mut wrong = spec.clone();
        let chosen = rng.random_range(0..spec.groups.len().max(1));
        match (rng.random_range(0..5_u8), wrong.groups.get_mut(chosen)) {
            (0, Some(group)) => group.colour = pick(Colour::ALL, group.colour, rng),
            (1, Some(group)) => group.shape = pick(Shape::ALL, group.shape, rng),
            (2, Some(group)) => group.count = rng.random_range(1..=4),
            (3, _) => wrong.relation = wrong.relation.map(|r| pick(Relation::ALL, r, rng)),
            _ => wrong.background = wrong.background.map(|b| pick(Background::ALL, b, rng)),
        }
        if wrong != *spec && wrong.validate().is_ok() {
            return Some(wrong);
        }
    }
    None
}

/// Leaves out one of several groups, and with it the relation.
fn drop_group(spec: &SceneSpec, rng: &mut impl Rng) -> Option<SceneSpec> {
    if spec.groups.len() < 2 {
        return None;
    }
    let mut less = spec.clone();
    less.groups.remove(rng.random_range(0..spec.groups.len()));
    less.relation = None;
    Some(less)
}

/// Leaves out each word with probability 0.3, but not all of them.
fn drop_words(text: &str, rng: &mut impl Rng) -> String {
    let kept: Vec<&str> = text
        .split_whitespace()
        .filter(|_| !rng.random_bool(0.3))
        .collect();
    if kept.is_empty() {
        text.to_owned()
    } else {
        kept.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_caption;
    use crate::testing::any_spec;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn the_rate_is_met() {
        let mut changed = 0;
        for seed in 0..2000 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let spec = any_spec(&mut rng);
            let clean = caption(&spec, Style::Coco, &mut rng);
            assert_eq!(corrupt(&spec, Style::Coco, &clean, 0.0, &mut rng), clean);
            let noisy = corrupt(&spec, Style::Coco, &clean, 0.4, &mut rng);
            changed += u32::from(parse_caption(&noisy) != Some(spec));
        }
        // A little under 40%, as dropping filler words may leave the meaning whole.
        assert!((620..=850).contains(&changed), "{changed} of 2000");
    }

    #[test]
    fn falsehoods_are_valid_and_differ_in_one_thing() {
        for seed in 0..1000 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let spec = any_spec(&mut rng);
            let wrong = falsify(&spec, &mut rng).unwrap();
            assert_eq!(wrong.validate(), Ok(()));
            let groups = spec
                .groups
                .iter()
                .zip(&wrong.groups)
                .filter(|(a, b)| a != b)
                .count();
            let other = usize::from(spec.relation != wrong.relation)
                + usize::from(spec.background != wrong.background);
            assert_eq!(groups + other, 1);
        }
    }
}
