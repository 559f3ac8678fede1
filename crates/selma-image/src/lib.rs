#![doc = include_str!("../README.md")]

mod exact;
mod filter;
mod resize;
mod window;

pub use exact::resize_exact;
pub use filter::Filter;
pub use resize::{resize, resize_crop};
