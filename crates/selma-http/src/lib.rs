#![doc = include_str!("../README.md")]

mod bearer;
#[cfg(feature = "loopback")]
pub mod loopback;
mod retry;

pub use bearer::{SecretInvalid, bearer};
pub use retry::{Hint, delay, is_passing, is_transient};
