//! Which specifications each style talks about.

use rand::{Rng, RngExt};

use crate::scene::pick;
use crate::{Background, Colour, Group, Relation, SceneSpec, Shape, Size, Style};

/// How often a style says what.
struct Habits {
    /// Weights of one, two and three groups.
    groups: [u32; 3],
    /// Chance that two groups stand in a stated relation.
    relation: f64,
    /// Chance that the background is stated.
    background: f64,
    /// Chance that a group's size is stated.
    size: f64,
    /// Chance that a group has more than one object (where the scene has room).
    several: f64,
}

const fn habits(style: Style) -> Habits {
    match style {
        Style::Coco => Habits {
            groups: [30, 60, 10],
            relation: 0.65,
            background: 0.6,
            size: 0.35,
            several: 0.15,
        },
        Style::LocalizedNarratives => Habits {
            groups: [15, 60, 25],
            relation: 0.7,
            background: 0.85,
            size: 0.45,
            several: 0.15,
        },
        Style::DiffusionDb => Habits {
            groups: [40, 50, 10],
            relation: 0.5,
            background: 0.6,
            size: 0.4,
            several: 0.1,
        },
        Style::CountBench => Habits {
            groups: [60, 40, 0],
            relation: 0.1,
            background: 0.5,
            size: 0.3,
            several: 0.9,
        },
        Style::Whoops => Habits {
            groups: [30, 65, 5],
            relation: 0.7,
            background: 0.5,
            size: 0.35,
            several: 0.1,
        },
    }
}

/// Draws what a caption of this style says. [`Style::Whoops`] draws only unusual specifications
/// ([`SceneSpec::is_unusual`]), the other styles only usual ones. The held-out parts are not excluded here.
pub fn sample_spec(style: Style, rng: &mut impl Rng) -> SceneSpec {
    loop {
        let spec = draw(style, rng);
        if spec.validate().is_ok() && spec.is_unusual() == (style == Style::Whoops) {
            return spec;
        }
    }
}

fn draw(style: Style, rng: &mut impl Rng) -> SceneSpec {
    let habits = habits(style);
    let number = weighted(habits.groups, rng);
    let relation = (number == 2 && rng.random_bool(habits.relation))
        .then(|| pick(Relation::ALL, Relation::Left, rng));
    let mut groups: Vec<Group> = Vec::with_capacity(number);
    for i in 0..number {
        let used: u8 = groups.iter().map(|g| g.count).sum();
        // Later groups need room for one object each.
        let room = 4_u8
            .saturating_sub(used)
            .saturating_sub((number - i - 1) as u8);
        let most = if relation.is_some() {
            room.min(2)
        } else {
            room
        };
        let count = if most > 1 && rng.random_bool(habits.several) {
            rng.random_range(2..=most)
        } else {
            1
        };
        let size = rng
            .random_bool(habits.size)
            .then(|| pick(Size::ALL, Size::Small, rng));
        let mut colour = pick(Colour::ALL, Colour::Red, rng);
        let shape = pick(Shape::ALL, Shape::Circle, rng);
        if style == Style::Whoops && i == 0 && rng.random_bool(0.8) {
            while !(Group {
                count,
                size,
                colour,
                shape,
            })
            .is_unusual()
            {
                colour = pick(Colour::ALL, Colour::Red, rng);
            }
        }
        groups.push(Group {
            count,
            size,
            colour,
            shape,
        });
    }
    let background = rng
        .random_bool(habits.background)
        .then(|| pick(Background::ALL, Background::Grey, rng));
    SceneSpec {
        groups,
        relation,
        background,
    }
}

/// 1, 2 or 3 by weight.
fn weighted(weights: [u32; 3], rng: &mut impl Rng) -> usize {
    let [one, two, three] = weights;
    let draw = rng.random_range(0..(one + two + three).max(1));
    if draw < one {
        1
    } else if draw < one + two {
        2
    } else {
        3
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn whoops_is_unusual_and_the_rest_is_not() {
        for &style in Style::ALL {
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            for _ in 0..1000 {
                let spec = sample_spec(style, &mut rng);
                assert_eq!(spec.validate(), Ok(()));
                assert_eq!(spec.is_unusual(), style == Style::Whoops);
            }
        }
    }

    #[test]
    fn count_captions_count() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut counts = [0_u32; 5];
        for _ in 0..1000 {
            let spec = sample_spec(Style::CountBench, &mut rng);
            for group in &spec.groups {
                counts[usize::from(group.count)] += 1;
            }
        }
        assert!(counts[2..].iter().all(|&n| n > 150), "{counts:?}");
    }
}
