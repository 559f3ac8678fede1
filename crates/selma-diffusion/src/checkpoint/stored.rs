//! Components on disk and in memory.

use std::path::PathBuf;

use crate::DiffusionError;
use crate::config::ConfigError;
use crate::weights::Weights;

/// A component in memory: its configuration and its network.
#[derive(Debug, Clone)]
pub struct Component<C, M> {
    /// What `config.json` says.
    pub config: C,
    /// The network.
    pub model: M,
}

/// A component on disk: its configuration, where that came from, and its tensors.
#[derive(Debug, Clone)]
pub struct Stored<C> {
    /// What `config.json` says, or what follows from the shapes.
    pub config: C,
    /// The tensors, under diffusers' names.
    pub weights: Weights,
    /// Where the configuration stands.
    pub(super) config_path: PathBuf,
}

impl<C> Stored<C> {
    /// The network, its weights not loaded yet.
    pub(super) fn model<M>(
        &self,
        init: impl Fn(&C) -> Result<M, ConfigError>,
    ) -> Result<M, DiffusionError> {
        Ok(init(&self.config).map_err(|error| error.in_file(&self.config_path))?)
    }
}
