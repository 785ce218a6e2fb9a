//! Bits per character over a whole split: in windows, or with the state carried from its first byte to its last.

mod tally;

use crate::model::{Model, ModelError};
use tally::Tally;
use tch::{Kind, Reduction, Tensor};

/// What a prediction knows of the text before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// What stands in its window. A window begins `stride` tokens after the one before, and counts the predictions
    /// that no window before has made: these know at least `seq_len - stride` tokens.
    Windows {
        /// 1 to `seq_len`; windows of a stride of `seq_len` do not overlap.
        stride: usize,
    },
    /// Everything: the state goes from window to window.
    Carried,
}

/// How a split is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Tokens of a window, at least 1; where the state is carried, of what is read at once.
    pub seq_len: usize,
    /// What predictions know.
    pub context: Context,
    /// Windows at a time, at least 1.
    pub rows: usize,
}

/// What an evaluation came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Mean over all predictions.
    pub bpc: f64,
    /// Half of its 95 % confidence interval: 1.96 standard errors of a ratio of sums over windows, which are taken to be
    /// independent. Not a number for a single window.
    pub error: f64,
    /// Predictions.
    pub tokens: u64,
    /// Mean by the place in the window, where windows do not overlap.
    pub by_position: Vec<f64>,
}

/// Predicts every byte of `bytes` but the first; `progress` hears of bytes done and bytes in all.
///
/// # Errors
/// If the model fails. Of fewer than two bytes nothing is predicted, and the mean is not a number.
pub fn evaluate(
    model: &Model,
    bytes: &[u8],
    options: &Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Evaluation, ModelError> {
    let mut tally = Tally::default();
    let total = bytes.len().saturating_sub(1) as u64;
    tch::no_grad(|| match options.context {
        Context::Windows { stride } => {
            let windows = windows(bytes.len(), options.seq_len.max(1), stride.max(1));
            for group in windows.chunk_by(|a, b| a.len == b.len) {
                for rows in group.chunks(options.rows.max(1)) {
                    let losses = window_losses(model, bytes, rows)?;
                    for (window, losses) in rows.iter().zip(losses.chunks(rows[0].len)) {
                        tally.add(&losses[window.skip..], window.skip);
                    }
                    progress(tally.tokens(), total);
                }
            }
            Ok::<(), ModelError>(())
        }
        Context::Carried => {
            let mut state = model.initial_state(1);
            let mut start = 0;
            while start + 1 < bytes.len() {
                let end = (start + options.seq_len.max(1)).min(bytes.len() - 1);
                let ids = to_tensor(&bytes[start..end], 1, model)?;
                let logits = model.prefill_all(&ids, &mut state)?;
                tally.add(&losses(&logits, &bytes[start + 1..=end], model)?, 0);
                progress(tally.tokens(), total);
                start = end;
            }
            Ok(())
        }
    })?;
    let whole = Context::Windows { stride: options.seq_len };
    Ok(tally.finish(options.context == whole))
}

/// A window of `len` predictions, of which the first `skip` have been made before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    start: usize,
    len: usize,
    skip: usize,
}

/// Windows that together predict every byte but the first once.
fn windows(bytes: usize, seq_len: usize, stride: usize) -> Vec<Window> {
    let mut windows = Vec::new();
    let (mut start, mut predicted) = (0, 0);
    while predicted + 1 < bytes {
        let end = (start + seq_len).min(bytes - 1);
        windows.push(Window { start, len: end - start, skip: predicted - start });
        predicted = end;
        start += stride.min(seq_len);
    }
    windows
}

/// Losses in nats of windows of one length, [windows, len].
fn window_losses(model: &Model, bytes: &[u8], windows: &[Window]) -> Result<Vec<f32>, ModelError> {
    let len = windows[0].len;
    let gather = |shift: usize| -> Vec<u8> {
        windows.iter().flat_map(|w| &bytes[w.start + shift..][..len]).copied().collect()
    };
    let logits = model.forward(&to_tensor(&gather(0), windows.len(), model)?)?;
    losses(&logits, &gather(1), model)
}

/// Losses in nats of logits [B, T, V] for targets [B, T].
fn losses(logits: &Tensor, targets: &[u8], model: &Model) -> Result<Vec<f32>, ModelError> {
    let logits = logits.f_reshape([targets.len() as i64, -1])?;
    let targets = to_tensor(targets, 1, model)?.f_reshape([-1])?;
    let losses = logits
        .f_cross_entropy_loss(&targets, None::<Tensor>, Reduction::None, -100, 0.0)?
        .f_to_kind(Kind::Float)?;
    let mut values = vec![0.0; losses.numel()];
    losses.f_copy_data(&mut values, losses.numel())?;
    Ok(values)
}

/// Int64 [rows, T] on the model's device.
fn to_tensor(bytes: &[u8], rows: usize, model: &Model) -> Result<Tensor, ModelError> {
    let ids: Vec<i64> = bytes.iter().copied().map(i64::from).collect();
    let ids = Tensor::f_from_slice(&ids)?.f_view([rows as i64, -1])?;
    Ok(ids.f_to_device(model.device())?)
}

#[cfg(test)]
mod tests {
    use super::{Context, Options, Window, evaluate, losses, to_tensor, windows};
    use crate::config::{LayerKind, ModelConfig};
    use crate::model::{Model, ModelError};
    use std::f64::consts::LN_2;
    use tch::Device;

    fn model() -> Model {
        let layers = vec![LayerKind::GateLoop, LayerKind::Attention, LayerKind::SimpleGateLoop];
        let config = ModelConfig { dim: 16, depth: 3, layers, ..ModelConfig::default() };
        Model::seeded(&config, Device::Cpu, 5).unwrap()
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * i * 7 + i * 13) as u8).collect()
    }

    /// The loss in bits of byte `t`, from `context` bytes before it.
    fn bits(model: &Model, bytes: &[u8], t: usize, context: usize) -> Result<f64, ModelError> {
        let logits = model.forward(&to_tensor(&bytes[t - context..t], 1, model)?)?;
        let last = logits.select(1, -1);
        Ok(f64::from(losses(&last, &bytes[t..=t], model)?[0]) / LN_2)
    }

    #[test]
    fn every_prediction_knows_what_its_context_says() -> Result<(), ModelError> {
        let (model, bytes) = (model(), bytes(45));
        for (seq_len, stride) in [(8, 8), (8, 3), (1, 1), (64, 64)] {
            for rows in [1, 4] {
                let context = Context::Windows { stride };
                let options = Options { seq_len, context, rows };
                let mut heard = Vec::new();
                let evaluation =
                    evaluate(&model, &bytes, &options, &mut |done, all| heard.push((done, all)))?;
                assert_eq!(evaluation.tokens, 44);
                assert_eq!(heard.last(), Some(&(44, 44)));
                let mut expected = 0.0;
                for Window { start, len, skip } in windows(45, seq_len, stride) {
                    for place in skip..len {
                        expected += bits(&model, &bytes, start + place + 1, place + 1)?;
                    }
                }
                let difference = (evaluation.bpc - expected / 44.0).abs();
                assert!(difference < 1e-4, "{seq_len} {stride}: {difference}");
                let places = if seq_len == stride { seq_len.min(44) } else { 0 };
                assert_eq!(evaluation.by_position.len(), places);
            }
        }
        Ok(())
    }

    #[test]
    fn a_carried_state_is_one_window_over_everything() -> Result<(), ModelError> {
        let (model, bytes) = (model(), bytes(45));
        let run = |seq_len, context| {
            let options = Options { seq_len, context, rows: 1 };
            evaluate(&model, &bytes, &options, &mut |_, _| {})
        };
        let whole = run(100, Context::Windows { stride: 100 })?;
        for seq_len in [1, 7, 44, 100] {
            let carried = run(seq_len, Context::Carried)?;
            assert!((carried.bpc - whole.bpc).abs() < 1e-4, "{seq_len}");
            assert_eq!(carried.tokens, 44);
        }
        // And it is not the same as windows that forget.
        assert!((run(4, Context::Windows { stride: 4 })?.bpc - whole.bpc).abs() > 1e-3);
        Ok(())
    }

    #[test]
    fn every_byte_but_the_first_is_predicted_once() {
        for bytes in 0..40 {
            for seq_len in 1..9 {
                for stride in 1..=seq_len {
                    let mut predicted = Vec::new();
                    for Window { start, len, skip } in windows(bytes, seq_len, stride) {
                        assert!(len <= seq_len && skip < len && skip <= seq_len - stride);
                        predicted.extend(start + skip + 1..=start + len);
                    }
                    assert_eq!(predicted, (1..bytes).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn windows_are_alike_but_for_the_last() {
        let [first, second, last] = windows(21, 8, 8)[..] else { panic!() };
        assert_eq!([first.len, second.len, last.len], [8, 8, 4]);
        assert_eq!(windows(21, 8, 4)[1], Window { start: 4, len: 8, skip: 4 });
    }
}
