//! The web's noise: captions that are wrong or incomplete.

use rand::{Rng, RngExt};

use crate::caption::caption;
use crate::scene::pick;
use crate::{Background, Colour, Group, Relation, SceneSpec, Shape, Size, Style};

/// What a careless writer says of `spec`: with probability `rate` each, a stated relation becomes its opposite, a stated
/// size the other one, a colour the one it is most like ([`Colour::look_alike`]), and a count above one a neighbouring one.
///
/// The result is valid. A rate outside `[0, 1]` is clamped; at zero nothing is drawn from `rng`.
pub fn mix_up(spec: &SceneSpec, rate: f64, rng: &mut impl Rng) -> SceneSpec {
    let rate = rate.clamp(0.0, 1.0);
    let mut said = spec.clone();
    if rate == 0.0 {
        return said;
    }
    // One thing after the other, so that one that is not valid together with the others leaves them as they are.
    let mut say = |change: &dyn Fn(&mut SceneSpec)| {
        let mut changed = said.clone();
        change(&mut changed);
        if changed.validate().is_ok() {
            said = changed;
        }
    };
    if rng.random_bool(rate) {
        say(&|said| said.relation = said.relation.map(Relation::inverse));
    }
    for i in 0..spec.groups.len() {
        let [colour, size, count, more] =
            [rate, rate, rate, 0.5].map(|probability| rng.random_bool(probability));
        let change = |said: &mut SceneSpec, of: &dyn Fn(&mut Group)| {
            said.groups.get_mut(i).into_iter().for_each(of);
        };
        if colour {
            say(&|said| change(said, &|group| group.colour = group.colour.look_alike()));
        }
        if size {
            say(&|said| change(said, &|group| group.size = group.size.map(Size::other)));
        }
        if count {
            say(&|said| change(said, &|group| group.count = neighbour(group.count, more)));
        }
    }
    said
}

/// A count from two to four that differs by one; one stays one.
fn neighbour(count: u8, more: bool) -> u8 {
    match count {
        2 => 3,
        3 if more => 4,
        3 => 2,
        4 => 3,
        other => other,
    }
}

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
    fn what_is_mixed_up_is_like_what_is_meant() {
        let [mut colours, mut relations, mut related, mut groups] = [0; 4];
        for seed in 0..8000 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let spec = any_spec(&mut rng);
            assert_eq!(mix_up(&spec, 0.0, &mut rng), spec);
            let said = mix_up(&spec, 0.4, &mut rng);
            assert_eq!(said.validate(), Ok(()));
            assert_eq!(said.background, spec.background);
            related += u32::from(spec.relation.is_some());
            relations += u32::from(said.relation != spec.relation);
            for (meant, said) in spec.groups.iter().zip(&said.groups) {
                assert_eq!(said.shape, meant.shape);
                assert_eq!(said.size.is_some(), meant.size.is_some());
                assert!(said.count.abs_diff(meant.count) <= 1);
                assert!([meant.colour, meant.colour.look_alike()].contains(&said.colour));
                groups += 1;
                colours += u32::from(said.colour != meant.colour);
            }
        }
        for (mixed, of) in [(colours, groups), (relations, related)] {
            let share = f64::from(mixed) / f64::from(of);
            assert!((0.37..=0.43).contains(&share), "{mixed} of {of}");
        }
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
