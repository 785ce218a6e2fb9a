//! The gates of a model at work: how long each layer remembers.

use super::block::Reading;
use super::mixer::transition_mode;
use super::{Model, ModelError};
use tch::Tensor;

impl Model {
    /// ln|a| of every gate of every gate loop while the model reads `ids`, by `layers.N.mixer`, first layer to last; of one
    /// in front of attention by `layers.N.front`.
    /// Layers of other kinds are left out. No gradient is recorded.
    ///
    /// # Shapes
    /// - `ids`: Int64 [B, T]; returns [B, T, H] for a gate loop of H heads and [B, T, D] for a simple one, never positive
    pub fn log_gate_magnitudes(&self, ids: &Tensor) -> Result<Vec<(String, Tensor)>, ModelError> {
        self.check_ids(ids, 2)?;
        let config = &self.config;
        let transition = transition_mode(config.ablate_complex, config.ablate_state_transition);
        let reading = Reading { transition, segments: None, ranks: None };
        tch::no_grad(|| {
            let mut gates = Vec::new();
            let mut x = self.embed(ids)?;
            for (n, block) in self.blocks.iter().enumerate() {
                x = block.forward_watched(&x, reading, |part, mixer, input| {
                    let log_a = mixer.log_gate_magnitude(input)?;
                    gates.extend(log_a.map(|log_a| (format!("layers.{n}.{part}"), log_a)));
                    Ok(())
                })?;
            }
            Ok(gates)
        })
    }
}
