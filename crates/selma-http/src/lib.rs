#![doc = include_str!("../README.md")]

mod bearer;
#[cfg(feature = "loopback")]
pub mod loopback;
mod rate;
mod retry;

pub use bearer::{SecretInvalid, bare, bearer};
pub use rate::rate_pause;
pub use retry::{Hint, delay, is_passing, is_transient};
