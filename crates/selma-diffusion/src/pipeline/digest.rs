//! What tells encoders from others, for what is kept of their work.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{StableDiffusion, TextEncoder};
use crate::DiffusionError;
use crate::models::{AutoencoderKLConfig, ClipTextConfig};
use crate::weights::FieldPath;

impl StableDiffusion {
    /// SHA-256 of all that the latents of a picture depend on besides its pixels: weights and configuration of the VAE's encoder, the number type, and the kind of
    /// device, as devices differ in the last bits. The decoder counts for nothing.
    ///
    /// # Errors
    ///
    /// If the device does not give the weights.
    pub fn image_encoder_sha256(&self) -> Result<[u8; 32], DiffusionError> {
        let config = AutoencoderKLConfig {
            rest: serde_json::Map::new(),
            ..self.vae_config.clone()
        };
        let mut hash = self.begin("image encoder");
        describe(&mut hash, &config);
        parameters(&mut hash, &self.vae.encoder)?;
        if let Some(conv) = &self.vae.quant_conv {
            parameters(&mut hash, conv)?;
        }
        Ok(hash.finalize().into())
    }

    /// SHA-256 of all that the embedding of a text depends on besides its tokens: weights and configurations of the text encoders, the number type, and the kind of device.
    ///
    /// # Errors
    ///
    /// If the device does not give the weights.
    pub fn text_encoders_sha256(&self) -> Result<[u8; 32], DiffusionError> {
        let mut hash = self.begin("text encoders");
        hash.update([u8::from(self.force_zeros_for_empty_prompt)]);
        for TextEncoder { config, model, .. } in
            [Some(&self.text_encoder), self.text_encoder_2.as_ref()]
                .into_iter()
                .flatten()
        {
            let config = ClipTextConfig {
                rest: serde_json::Map::new(),
                ..config.clone()
            };
            describe(&mut hash, &config);
            parameters(&mut hash, model)?;
        }
        Ok(hash.finalize().into())
    }

    /// A hash of the device without its number.
    fn begin(&self, what: &str) -> Sha256 {
        let device = format!("{:?}", self.device());
        let kind: String = device.chars().filter(|c| !c.is_ascii_digit()).collect();
        Sha256::new().chain_update(what).chain_update(kind)
    }
}

/// Adds a configuration.
fn describe(hash: &mut Sha256, config: &impl Serialize) {
    // Numbers, names and lists always become JSON.
    hash.update(serde_json::to_vec(config).unwrap_or_default());
}

/// Adds a network's parameters: their field paths, types and shapes, and the values as they are in memory.
fn parameters(hash: &mut Sha256, network: &impl Module) -> Result<(), DiffusionError> {
    let mut visitor = Parameters {
        path: FieldPath::default(),
        hash,
        failure: None,
    };
    network.visit(&mut visitor);
    visitor.failure.map_or(Ok(()), Err)
}

struct Parameters<'a> {
    path: FieldPath,
    hash: &'a mut Sha256,
    failure: Option<DiffusionError>,
}

impl ModuleVisitor for Parameters<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        self.path.exit(container_type);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        match param.val().try_into_data() {
            Ok(data) => {
                let head = format!("{} {:?} {:?}", self.path.key(), data.dtype(), data.shape());
                self.hash.update(head);
                self.hash.update(data.as_bytes());
            }
            Err(error) => self.failure = Some(DiffusionError::read_back(error)),
        }
    }
}
