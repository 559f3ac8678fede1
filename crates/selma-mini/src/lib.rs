#![doc = include_str!("../README.md")]

mod caption;
mod corrupt;
mod error;
mod eval_set;
mod grammar;
mod oracle;
mod question;
mod render;
mod sample;
mod scene;
mod shapes;
mod skills;
mod spec;
#[cfg(test)]
mod testing;
mod training;
mod world;

pub use caption::{Style, caption, parse_caption, vocabulary};
pub use corrupt::{corrupt, mix_up};
pub use error::MiniError;
pub use eval_set::{EvalItem, EvalSet, TEST_PROMPTS_PER_STYLE, VALIDATION_PROMPTS_PER_STYLE};
pub use grammar::GrammarModel;
pub use oracle::{OracleVqa, see};
pub use question::{Noun, Question, SeenObject, SeenScene, questions};
pub use render::render;
pub use sample::sample_spec;
pub use scene::{Object, SIDE, Scene, layout};
pub use shapes::EXTENT;
pub use skills::skill;
pub use spec::{Group, Partition, SceneSpec};
pub use training::{STYLE_PER_MILLE, TrainingItem, TrainingWorld};
pub use world::{Background, Colour, Relation, Shape, Size, count_of, count_word};
