#![doc = include_str!("../README.md")]

mod filter;
mod resize;
mod window;

pub use filter::Filter;
pub use resize::{resize, resize_crop};
