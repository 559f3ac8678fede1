//! What several tests share.

use rand::Rng;

use crate::scene::pick;
use crate::{SceneSpec, Style, sample_spec};

/// Any specification, usual or not.
pub(crate) fn any_spec(rng: &mut impl Rng) -> SceneSpec {
    let style = pick(Style::ALL, Style::Coco, rng);
    sample_spec(style, rng)
}
