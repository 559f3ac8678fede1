//! The tensors of one module put together to its update.

use std::collections::BTreeMap;

use ndarray::ArrayD;

use super::config::AdapterConfig;
use crate::{
    Kind, LoraError, LoraModule, Update,
    update::{Dora, Loha, Lokr, Matrix, Side, check_size, contract},
};

/// One part of a module in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    A,
    B,
    Mid,
    Alpha,
    HadaW1A,
    HadaW1B,
    HadaW2A,
    HadaW2B,
    HadaT1,
    HadaT2,
    LokrW1,
    LokrW1A,
    LokrW1B,
    LokrW2,
    LokrW2A,
    LokrW2B,
    LokrT2,
    Diff,
    /// DoRA's lengths as LyCORIS stores them.
    DoraScale,
    /// The same as PEFT stores them.
    MagnitudeVector,
}

impl Part {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::Mid => "lora_mid",
            Self::Alpha => "alpha",
            Self::HadaW1A => "hada_w1_a",
            Self::HadaW1B => "hada_w1_b",
            Self::HadaW2A => "hada_w2_a",
            Self::HadaW2B => "hada_w2_b",
            Self::HadaT1 => "hada_t1",
            Self::HadaT2 => "hada_t2",
            Self::LokrW1 => "lokr_w1",
            Self::LokrW1A => "lokr_w1_a",
            Self::LokrW1B => "lokr_w1_b",
            Self::LokrW2 => "lokr_w2",
            Self::LokrW2A => "lokr_w2_a",
            Self::LokrW2B => "lokr_w2_b",
            Self::LokrT2 => "lokr_t2",
            Self::Diff => "diff",
            Self::DoraScale => "dora_scale",
            Self::MagnitudeVector => "lora_magnitude_vector",
        }
    }

    /// The kind of update that has such a part; `None` for alpha, which several have.
    pub(super) fn kind(self) -> Option<Kind> {
        match self {
            Self::Alpha => None,
            Self::A | Self::B | Self::Mid => Some(Kind::Lora),
            Self::HadaW1A
            | Self::HadaW1B
            | Self::HadaW2A
            | Self::HadaW2B
            | Self::HadaT1
            | Self::HadaT2 => Some(Kind::Loha),
            Self::LokrW1
            | Self::LokrW1A
            | Self::LokrW1B
            | Self::LokrW2
            | Self::LokrW2A
            | Self::LokrW2B
            | Self::LokrT2 => Some(Kind::Lokr),
            Self::Diff => Some(Kind::Full),
            Self::DoraScale | Self::MagnitudeVector => Some(Kind::Dora),
        }
    }
}

/// The parts of a module found so far, each with the name of its tensor.
#[derive(Debug, Default)]
pub(super) struct Parts {
    tensors: BTreeMap<Part, (String, ArrayD<f32>)>,
    alpha: Option<(String, f64)>,
}

impl Parts {
    /// Adds a tensor; gives the name of one that was there already.
    pub(super) fn add(&mut self, part: Part, key: &str, tensor: ArrayD<f32>) -> Option<String> {
        let earlier = self.tensors.insert(part, (key.to_owned(), tensor));
        earlier.map(|(key, _)| key)
    }

    /// Sets alpha; gives the name of one that was there already.
    pub(super) fn set_alpha(&mut self, key: &str, alpha: f64) -> Option<String> {
        let earlier = self.alpha.replace((key.to_owned(), alpha));
        earlier.map(|(key, _)| key)
    }

    /// The update that the parts make up.
    pub(super) fn assemble(
        mut self,
        module: &str,
        config: &AdapterConfig,
    ) -> Result<Update, LoraError> {
        let update = match self.kind(module)? {
            Kind::Loha => self.loha(module, config)?,
            Kind::Lokr => self.lokr(module, config)?,
            Kind::Full => self.full(module)?,
            Kind::Lora | Kind::Dora => self.lora(module, config)?,
        };
        let update = self.with_magnitude(update, module, config)?;
        // What is left has no place in an update of this kind.
        match self.tensors.into_iter().next() {
            None => Ok(update),
            Some((part, (key, _))) => Err(LoraError::SurplusPart {
                module: module.to_owned(),
                part: part.name(),
                key,
            }),
        }
    }

    fn kind(&self, module: &str) -> Result<Kind, LoraError> {
        let mut kinds = self
            .tensors
            .iter()
            .filter_map(|(part, (key, _))| Some((part.kind()?, key)))
            // The lengths of a DoRA go with a direction of another kind.
            .filter(|(kind, _)| *kind != Kind::Dora);
        let Some((kind, first)) = kinds.next() else {
            let found = match &self.alpha {
                Some((key, _)) => key.clone(),
                None => self.first_key(),
            };
            return Err(LoraError::MissingFactor {
                module: module.to_owned(),
                missing: "A (down)",
                found,
            });
        };
        match kinds.find(|(other, _)| *other != kind) {
            None => Ok(kind),
            Some((_, second)) => Err(LoraError::MixedKinds {
                module: module.to_owned(),
                first: first.clone(),
                second: second.clone(),
            }),
        }
    }

    fn take(&mut self, part: Part) -> Option<ArrayD<f32>> {
        self.tensors.remove(&part).map(|(_, tensor)| tensor)
    }

    /// A part that must be there; `found` is the name of one that is.
    fn need(&mut self, part: Part, module: &str, found: &str) -> Result<ArrayD<f32>, LoraError> {
        self.take(part).ok_or_else(|| LoraError::MissingFactor {
            module: module.to_owned(),
            missing: match part {
                Part::A => "A (down)",
                Part::B => "B (up)",
                other => other.name(),
            },
            found: found.to_owned(),
        })
    }

    fn first_key(&self) -> String {
        let first = self.tensors.values().next();
        first.map(|(key, _)| key.clone()).unwrap_or_default()
    }

    fn alpha(
        &mut self,
        module: &str,
        rank: usize,
        config: &AdapterConfig,
    ) -> Result<f64, LoraError> {
        match self.alpha.take() {
            // sd-scripts: an alpha of 0 stands for the rank.
            Some((_, 0.0)) => Ok(rank as f64),
            Some((_, alpha)) => Ok(alpha),
            None => config
                .alpha(module, rank)
                .map_err(|error| error.in_module(module)),
        }
    }

    fn lora(&mut self, module: &str, config: &AdapterConfig) -> Result<Update, LoraError> {
        let found = self.first_key();
        let a = self.need(Part::A, module, &found)?;
        let b = self.need(Part::B, module, &found)?;
        let rank = a.shape().first().copied().unwrap_or(0);
        let alpha = self.alpha(module, rank, config)?;
        let lora = match self.take(Part::Mid) {
            None => LoraModule::new(a, b, alpha),
            Some(mid) => two_factors(&a, b, &mid, alpha),
        };
        Ok(Update::Lora(lora.map_err(|e| e.in_module(module))?))
    }

    fn loha(&mut self, module: &str, config: &AdapterConfig) -> Result<Update, LoraError> {
        let found = self.first_key();
        let mut side = |core, a, b| {
            Ok::<_, LoraError>(Side {
                core: self.take(core),
                a: self.need(a, module, &found)?,
                b: self.need(b, module, &found)?,
            })
        };
        let first = side(Part::HadaT1, Part::HadaW1A, Part::HadaW1B)?;
        let second = side(Part::HadaT2, Part::HadaW2A, Part::HadaW2B)?;
        let alpha = self.alpha(module, first.rank(), config)?;
        let loha = Loha::new(first, second, alpha);
        Ok(Update::Loha(loha.map_err(|e| e.in_module(module))?))
    }

    fn lokr(&mut self, module: &str, config: &AdapterConfig) -> Result<Update, LoraError> {
        let found = self.first_key();
        let mut matrix = |whole, core: Option<Part>, a, b| {
            if let Some(whole) = self.take(whole) {
                return Ok::<_, LoraError>(Matrix::Whole(whole));
            }
            Ok(Matrix::Product(Box::new(Side {
                core: core.and_then(|core| self.take(core)),
                a: self.need(a, module, &found)?,
                b: self.need(b, module, &found)?,
            })))
        };
        let first = matrix(Part::LokrW1, None, Part::LokrW1A, Part::LokrW1B)?;
        let core = Some(Part::LokrT2);
        let second = matrix(Part::LokrW2, core, Part::LokrW2A, Part::LokrW2B)?;
        // Two whole matrices have no rank that alpha could be divided by.
        let scale = match first.rank().or(second.rank()) {
            Some(rank) => self.alpha(module, rank, config)? / rank as f64,
            None => config.scale(module),
        };
        let lokr = Lokr::new(first, second, scale);
        Ok(Update::Lokr(lokr.map_err(|e| e.in_module(module))?))
    }

    /// Makes a DoRA of a low-rank update that has lengths beside it; lengths beside anything else stay
    /// behind.
    fn with_magnitude(
        &mut self,
        update: Update,
        module: &str,
        config: &AdapterConfig,
    ) -> Result<Update, LoraError> {
        if update.kind() == Kind::Full {
            return Ok(update);
        }
        let dora = if let Some(magnitude) = self.take(Part::MagnitudeVector) {
            Dora::of_peft(update, magnitude)
        } else if let Some(magnitude) = self.take(Part::DoraScale) {
            Dora::of_lycoris(update, magnitude)
        } else if config.dora(module) {
            return Err(LoraError::MissingFactor {
                module: module.to_owned(),
                missing: Part::MagnitudeVector.name(),
                found: "use_dora in its configuration".to_owned(),
            });
        } else {
            return Ok(update);
        };
        Ok(Update::Dora(dora.map_err(|e| e.in_module(module))?))
    }

    fn full(&mut self, module: &str) -> Result<Update, LoraError> {
        let found = self.first_key();
        let diff = self.need(Part::Diff, module, &found)?;
        let full = Update::full(diff);
        full.map_err(|error| error.in_module(module))
    }
}

/// The most numbers that `A` may have once the middle factor is multiplied in: that of the widest
/// convolution of SDXL at full rank has 59 million.
const MAX_A: usize = 1 << 26;

/// A convolution decomposed into three (LoCon with `lora_mid`, CP or Tucker decomposition) as two:
/// the middle factor `[m, n, kh, kw]` multiplied into `down [n, in, 1, 1]` gives
/// `A [m, in, kh, kw]`, and `up [out, m, 1, 1]` stays. The same `dW`, rounded once.
fn two_factors(
    down: &ArrayD<f32>,
    up: ArrayD<f32>,
    mid: &ArrayD<f32>,
    alpha: f64,
) -> Result<LoraModule, LoraError> {
    let misfit = || LoraError::PartShapes {
        left: "lora_mid",
        left_shape: mid.shape().to_vec(),
        right: "lora_down",
        right_shape: down.shape().to_vec(),
    };
    let ([m, n, kernel @ ..], [down_n, inputs, ones @ ..]) = (mid.shape(), down.shape()) else {
        return Err(misfit());
    };
    if n != down_n || *n == 0 || ones.iter().any(|&k| k != 1) {
        return Err(misfit());
    }
    let mut shape = vec![*m, *inputs];
    shape.extend(kernel);
    check_size("A with lora_mid multiplied into it", &shape, MAX_A)?;
    let a = contract(mid, down)
        .mapv(|x| x as f32)
        .into_dyn()
        .into_shape_with_order(shape)
        .map_err(|_| misfit())?;
    // Alpha is meant for the rank of `down`.
    LoraModule::new(a, up, alpha * *m as f64 / *n as f64)
}

#[cfg(test)]
mod tests {
    use ndarray::IxDyn;

    use super::*;

    fn tensor(shape: &[usize]) -> ArrayD<f32> {
        let mut next = 0.0;
        ArrayD::from_shape_simple_fn(IxDyn(shape), || {
            next += 1.0;
            next % 7.0 - 3.0
        })
    }

    #[test]
    fn a_middle_factor_cannot_stand_for_endless_memory() {
        // 300 kilobytes for 2500 million numbers.
        let (down, up) = (tensor(&[1, 50_000, 1, 1]), tensor(&[1, 50_000, 1, 1]));
        let error = two_factors(&down, up, &tensor(&[50_000, 1, 1, 1]), 1.0).unwrap_err();
        assert!(matches!(error, LoraError::TooLarge { .. }), "{error}");
    }

    #[test]
    fn a_middle_factor_may_be_wider_than_the_first() {
        // As einsum("m n h w, o m, n i -> o i h w", mid, up, down) with alpha / n.
        let (down, up, mid) = (
            tensor(&[2, 4, 1, 1]),
            tensor(&[5, 3, 1, 1]),
            tensor(&[3, 2, 3, 3]),
        );
        let module = two_factors(&down, up.clone(), &mid, 4.0).unwrap();
        assert_eq!((module.rank(), module.scale()), (3, 2.0));
        assert_eq!(module.weight_shape(), [5, 4, 3, 3]);
        let delta = module.delta().unwrap();
        for (o, i, h, w) in [(0, 0, 0, 0), (4, 3, 2, 1), (2, 1, 0, 2)] {
            let terms = (0..3).flat_map(|m| (0..2).map(move |n| (m, n)));
            let expected: f32 = terms
                .map(|(m, n)| mid[[m, n, h, w]] * up[[o, m, 0, 0]] * down[[n, i, 0, 0]])
                .sum();
            assert_eq!(delta[[o, i * 9 + h * 3 + w]], 2.0 * expected);
        }
    }
}
