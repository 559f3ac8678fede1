#![doc = include_str!("../README.md")]

mod caption;
mod corrupt;
mod error;
mod oracle;
mod question;
mod render;
mod sample;
mod scene;
mod shapes;
mod spec;
#[cfg(test)]
mod testing;
mod training;
mod world;

pub use caption::{Style, caption, parse_caption, vocabulary};
pub use corrupt::corrupt;
pub use error::MiniError;
pub use oracle::{OracleVqa, see};
pub use question::{Noun, Question, SeenObject, SeenScene, questions};
pub use render::render;
pub use sample::sample_spec;
pub use scene::{Object, SIDE, Scene, layout};
pub use shapes::EXTENT;
pub use spec::{Group, Partition, SceneSpec};
pub use training::{STYLE_PER_MILLE, TrainingItem, TrainingWorld};
pub use world::{Background, Colour, Relation, Shape, Size, count_of, count_word};
