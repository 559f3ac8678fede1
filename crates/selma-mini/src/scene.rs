//! A picture before it is drawn, and the layout that turns a specification into one.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::{Background, Colour, MiniError, Relation, SceneSpec, Shape, Size};

/// Width and height of every scene, in pixels.
pub const SIDE: u32 = 64;

/// One object of a scene.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// Its shape.
    pub shape: Shape,
    /// Its colour.
    pub colour: Colour,
    /// Its size.
    pub size: Size,
    /// Centre, pixels from the left edge.
    pub x: f32,
    /// Centre, pixels from the top edge.
    pub y: f32,
    /// Radius in pixels: shapes reach at most [`EXTENT`](crate::EXTENT) times as far from the centre along an axis.
    pub radius: f32,
}

/// A 64 by 64 pixel scene: a flat background with objects that do not touch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scene {
    /// The background.
    pub background: Background,
    /// The objects, in the order of the groups they come from.
    pub objects: Vec<Object>,
}

/// Draws a scene of which `spec` is true; what the specification leaves open is chosen by `rng`.
///
/// Every object stands in the middle of a half or quarter of the picture or of the whole, so that objects keep at least
/// 2.8 pixels apart and a stated relation is clear: the groups lie in opposite halves. All these places are multiples of
/// 16 pixels. An unstated size is chosen once per group, and never so that something large lies above something small
/// (see [`SceneSpec::is_top_heavy`]).
///
/// # Errors
/// Those of [`SceneSpec::validate`].
pub fn layout(spec: &SceneSpec, rng: &mut impl Rng) -> Result<Scene, MiniError> {
    spec.validate()?;
    let background = spec
        .background
        .unwrap_or_else(|| pick(Background::ALL, Background::Grey, rng));
    let sizes = sizes(spec, rng);
    let mut places = places(spec, rng).into_iter();
    let mut objects = Vec::with_capacity(usize::from(spec.total()));
    for (group, size) in spec.groups.iter().zip(sizes) {
        for (x, y) in places.by_ref().take(usize::from(group.count)) {
            objects.push(Object {
                shape: group.shape,
                colour: group.colour,
                size,
                x,
                y,
                radius: size.radius(),
            });
        }
    }
    Ok(Scene {
        background,
        objects,
    })
}

/// One place per object, in the order of the groups.
fn places(spec: &SceneSpec, rng: &mut impl Rng) -> Vec<(f32, f32)> {
    let transposed = |(x, y)| (y, x);
    if let Some(relation) = spec.relation {
        let mut places = Vec::new();
        for (i, group) in spec.groups.iter().enumerate() {
            let first_side = (i == 0) == matches!(relation, Relation::Left | Relation::Above);
            let x = if first_side { 16.0 } else { 48.0 };
            if group.count == 1 {
                places.push((x, 32.0));
            } else {
                places.extend([(x, 16.0), (x, 48.0)]);
            }
        }
        return if relation.is_horizontal() {
            places
        } else {
            places.into_iter().map(transposed).collect()
        };
    }
    let beside = [(16.0, 32.0), (48.0, 32.0)];
    let diagonal = [(16.0, 16.0), (48.0, 48.0)];
    let other_diagonal = [(48.0, 16.0), (16.0, 48.0)];
    let mut places = match spec.total() {
        1 => vec![(32.0, 32.0)],
        2 => match rng.random_range(0..4_u8) {
            0 => beside.to_vec(),
            1 => beside.map(transposed).to_vec(),
            2 => diagonal.to_vec(),
            _ => other_diagonal.to_vec(),
        },
        _ => [diagonal, other_diagonal].concat(),
    };
    shuffle(&mut places, rng);
    places
}

/// A size per group.
fn sizes(spec: &SceneSpec, rng: &mut impl Rng) -> Vec<Size> {
    let mut sizes: Vec<Size> = spec
        .groups
        .iter()
        .map(|g| g.size.unwrap_or_else(|| pick(Size::ALL, Size::Large, rng)))
        .collect();
    let upper = match spec.relation {
        Some(Relation::Above) => 0,
        Some(Relation::Below) => 1,
        _ => return sizes,
    };
    if let [first, second] = sizes.as_mut_slice() {
        let (above, below) = if upper == 0 {
            (first, second)
        } else {
            (second, first)
        };
        if *above == Size::Large && *below == Size::Small && !spec.is_top_heavy() {
            match spec.groups.get(upper).and_then(|g| g.size) {
                None => *above = Size::Small,
                Some(_) => *below = Size::Large,
            }
        }
    }
    sizes
}

/// A uniform choice; `otherwise` stands for the choice from nothing.
pub(crate) fn pick<T: Copy>(items: &[T], otherwise: T, rng: &mut impl Rng) -> T {
    if items.is_empty() {
        return otherwise;
    }
    items
        .get(rng.random_range(0..items.len()))
        .copied()
        .unwrap_or(otherwise)
}

/// Fisher-Yates.
pub(crate) fn shuffle<T>(items: &mut [T], rng: &mut impl Rng) {
    for i in (1..items.len()).rev() {
        items.swap(i, rng.random_range(0..=i));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::EXTENT;
    use crate::testing::any_spec;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn objects_keep_apart_and_inside() {
        for seed in 0..3000 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let scene = layout(&any_spec(&mut rng), &mut rng).unwrap();
            for (i, a) in scene.objects.iter().enumerate() {
                let reach = a.radius * EXTENT;
                for v in [a.x, a.y] {
                    assert!(v - reach >= 1.0 && v + reach <= 63.0, "seed {seed}: {a:?}");
                }
                for b in &scene.objects[..i] {
                    let gap = (a.x - b.x).abs().max((a.y - b.y).abs()) - reach - b.radius * EXTENT;
                    assert!(gap >= 2.8, "seed {seed}: {a:?} and {b:?} are {gap} apart");
                }
            }
        }
    }

    #[test]
    fn the_scene_is_what_the_spec_says() {
        for seed in 0..2000 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let spec = any_spec(&mut rng);
            let scene = layout(&spec, &mut rng).unwrap();
            assert_eq!(scene.objects.len(), usize::from(spec.total()));
            assert!(spec.background.is_none_or(|b| b == scene.background));
            let mut objects = scene.objects.iter();
            for group in &spec.groups {
                for object in objects.by_ref().take(usize::from(group.count)) {
                    assert_eq!((object.shape, object.colour), (group.shape, group.colour));
                    assert!(group.size.is_none_or(|s| s == object.size));
                }
            }
        }
    }

    #[test]
    fn same_seed_same_scene() {
        let scene = |seed| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            layout(&any_spec(&mut rng), &mut rng).unwrap()
        };
        assert_eq!(scene(7), scene(7));
        assert_ne!(scene(7), scene(8));
    }
}
