//! The VAE in tiles: `enable_tiling` of diffusers' `AutoencoderKL`.

use burn::tensor::{Tensor, TensorData};

use super::{AutoencoderKL, AutoencoderKLConfig, DiagonalGaussian};

/// A tile and the next share this part of it.
const OVERLAP: usize = 4;

/// Tiles for pictures that are larger than one, so that the memory of the VAE does not grow with them. Neighbours overlap by a quarter, where one fades into the
/// other.
///
/// A picture of one tile is encoded and decoded as a whole, to the bit. A larger one differs a little from that, as group normalisation and attention see no
/// further than the tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VaeTiling {
    /// Side of a tile in latents.
    tile: usize,
    /// Pixels per latent in each direction.
    factor: usize,
}

impl VaeTiling {
    /// Tiles of the VAE's native size, as in diffusers.
    #[must_use]
    pub fn new(config: &AutoencoderKLConfig) -> Self {
        Self::of_size(config, config.sample_size)
    }

    /// Square tiles of about this many pixels a side: rounded down to a size whose quarter is a whole number of latents, and at least four latents.
    #[must_use]
    pub fn of_size(config: &AutoencoderKLConfig, pixels: usize) -> Self {
        let factor = config.factor();
        let quarters = pixels / factor / OVERLAP;
        Self {
            tile: quarters.max(1) * OVERLAP,
            factor,
        }
    }

    /// Side of a tile in pixels.
    #[must_use]
    pub fn size(&self) -> usize {
        self.tile * self.factor
    }

    /// As [`AutoencoderKL::encode`].
    #[must_use]
    pub fn encode(&self, vae: &AutoencoderKL, image: Tensor<4>) -> DiagonalGaussian {
        let moments = tiled(image, self.size(), self.tile, |tile| vae.moments(tile));
        DiagonalGaussian::from_moments(moments)
    }

    /// As [`AutoencoderKL::decode`].
    #[must_use]
    pub fn decode(&self, vae: &AutoencoderKL, latents: Tensor<4>) -> Tensor<4> {
        tiled(latents, self.tile, self.size(), |tile| vae.decode(tile))
    }
}

/// Runs a network over tiles of side `from`, which it turns into tiles of side `to`.
fn tiled(
    input: Tensor<4>,
    from: usize,
    to: usize,
    network: impl Fn(Tensor<4>) -> Tensor<4>,
) -> Tensor<4> {
    let [_, _, height, width] = input.dims();
    if height <= from && width <= from {
        return network(input);
    }
    let (stride, overlap) = (from - from / OVERLAP, to / OVERLAP);
    let mut strips = Vec::new();
    let mut above: Vec<Tensor<4>> = Vec::new();
    for top in (0..height).step_by(stride) {
        let strip = input.clone().narrow(2, top, from.min(height - top));
        let mut row: Vec<Tensor<4>> = Vec::new();
        for (column, left) in (0..width).step_by(stride).enumerate() {
            let mut tile = network(strip.clone().narrow(3, left, from.min(width - left)));
            if let Some(above) = above.get(column) {
                tile = faded(above, tile, 2, overlap);
            }
            if let Some(left) = row.last() {
                tile = faded(left, tile, 3, overlap);
            }
            row.push(tile);
        }
        // What the next tile covers is left to it.
        let kept = row.iter().map(|tile| {
            let [_, _, height, width] = tile.dims();
            let kept = to - overlap;
            let tile = tile.clone().narrow(2, 0, kept.min(height));
            tile.narrow(3, 0, kept.min(width))
        });
        strips.push(Tensor::cat(kept.collect(), 3));
        above = row;
    }
    Tensor::cat(strips, 2)
}

/// The tile with its first `extent` rows or columns faded in over the last ones of the tile before.
fn faded(before: &Tensor<4>, tile: Tensor<4>, dim: usize, extent: usize) -> Tensor<4> {
    let len = |tensor: &Tensor<4>| tensor.dims().get(dim).copied().unwrap_or_default();
    let (before_len, tile_len) = (len(before), len(&tile));
    let extent = extent.min(before_len).min(tile_len);
    let shares: Vec<f32> = (0..extent).map(|at| at as f32 / extent as f32).collect();
    let shape = if dim == 2 {
        [1, 1, extent, 1]
    } else {
        [1, 1, 1, extent]
    };
    let share = Tensor::<4>::from_data(TensorData::new(shares, shape), &tile.device());
    let share = share.cast(tile.dtype());
    let out = before.clone().narrow(dim, before_len - extent, extent);
    let faded =
        out * (share.clone().neg().add_scalar(1.0)) + tile.clone().narrow(dim, 0, extent) * share;
    if extent == tile_len {
        return faded;
    }
    let rest = tile.narrow(dim, extent, tile_len - extent);
    Tensor::cat(vec![faded, rest], dim)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn ramp(height: usize, width: usize) -> Tensor<4> {
        let values: Vec<f32> = (0..height * width).map(|at| at as f32).collect();
        Tensor::from_data(
            TensorData::new(values, [1, 1, height, width]),
            &Device::flex(),
        )
    }

    /// A network without a view beyond one pixel gives the same in tiles, at every size.
    #[test]
    fn tiles_cover_the_picture_once() {
        for (height, width) in [(8, 8), (7, 20), (20, 7), (13, 9), (12, 12), (6, 25)] {
            let input = ramp(height, width);
            let expected = input.to_data();
            let found = tiled(input, 8, 8, |tile| tile).to_data();
            found.assert_approx_eq::<f32>(&expected, burn::tensor::Tolerance::absolute(1e-4));
        }
    }

    #[test]
    fn one_tile_is_the_picture_as_a_whole() {
        let calls = std::cell::Cell::new(0);
        let output = tiled(ramp(8, 5), 8, 8, |tile| {
            calls.set(calls.get() + 1);
            tile
        });
        assert_eq!((output.dims(), calls.get()), ([1, 1, 8, 5], 1));
    }

    #[test]
    fn a_tile_is_a_multiple_of_four_latents() {
        let config = AutoencoderKLConfig {
            block_out_channels: vec![64; 4],
            sample_size: 512,
            ..AutoencoderKLConfig::default()
        };
        assert_eq!(VaeTiling::new(&config).size(), 512);
        for (pixels, size) in [(500, 480), (64, 64), (1, 32)] {
            assert_eq!(VaeTiling::of_size(&config, pixels).size(), size);
        }
    }
}
