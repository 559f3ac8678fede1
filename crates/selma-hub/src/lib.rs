#![doc = include_str!("../README.md")]

mod cache;
mod client;
mod config;
mod download;
mod error;
mod event;
mod hub;
mod id;
mod listing;
mod partial;
mod select;
mod url;

pub use config::HubConfig;
pub use error::HubError;
pub use event::{HubEvent, HubObserver};
pub use hub::{Hub, Model};
pub use id::ModelId;
pub use secrecy::SecretString;
/// A proxy for all requests. `Proxy::try_from_env` reads the usual variables, for programs that do.
pub use ureq::Proxy;
