//! Bits per character over a whole split: in windows, or with the state carried from its first byte to its last.

mod accuracy;
mod predict;
mod tally;
mod validate;

pub use accuracy::Accuracy;
pub use validate::{Validation, validate, validate_on};

use crate::config::LossOn;
use crate::data::{Batch, Tokens};
use crate::model::{Model, ModelError};
use predict::{Predictions, Rows};
pub(crate) use predict::{ids, segments};
use tally::Tally;

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
    /// Which tokens the mean is over.
    pub loss_on: LossOn,
}

/// What an evaluation came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Mean over all predictions, in bits a byte of text: of subwords, bits a token divided by the bytes that a token
    /// of this text has on average.
    pub bpc: f64,
    /// Half of its 95 % confidence interval: 1.96 standard errors of a ratio of sums over windows, which are taken to be
    /// independent. Not a number for a single window.
    pub error: f64,
    /// Predictions.
    pub tokens: u64,
    /// Mean by the place in the window, where windows do not overlap.
    pub by_position: Vec<f64>,
    /// Of a synthetic task.
    pub answers: Option<Accuracy>,
}

/// Predicts every token but the first; `progress` hears of tokens done and tokens in all.
///
/// # Errors
/// If the model fails. Of fewer than two tokens nothing is predicted, and the mean is not a number.
pub fn evaluate<'a>(
    model: &Model,
    tokens: impl Into<Tokens<'a>>,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Evaluation, ModelError> {
    let tokens = tokens.into();
    let mut tally = Tally::default();
    let mut done = 0;
    let total = tokens.len().saturating_sub(1);
    let mut count = |predictions: &Predictions<'_>, skip: usize| {
        tally.add(predictions, skip, |place| predictions.count(place));
        done += predictions.losses.len() - skip;
        progress(done as u64, total as u64);
    };
    tch::no_grad(|| match options.context {
        Context::Windows { stride } => {
            let windows = windows(tokens.len(), options.seq_len.max(1), stride.max(1));
            for group in windows.chunk_by(|a, b| a.len == b.len) {
                for rows in group.chunks(options.rows.max(1)) {
                    let starts = rows.iter().map(|window| (window.start, window.start));
                    let batch = Batch::gather(tokens, starts, rows[0].len + 1);
                    let mut skips = rows.iter().map(|window| window.skip);
                    Rows::predict(model, &batch, options.loss_on, None)?
                        .each(|row| count(row, skips.next().unwrap_or(0)));
                }
            }
            Ok::<(), ModelError>(())
        }
        Context::Carried => {
            let mut state = model.initial_state(1);
            let mut start = 0;
            while start < total {
                let len = options.seq_len.max(1).min(total - start);
                let batch = Batch::gather(tokens, [(start, 0)].into_iter(), len + 1);
                Rows::predict(model, &batch, options.loss_on, Some(&mut state))?
                    .each(|row| count(row, 0));
                start += len;
            }
            Ok(())
        }
    })?;
    let whole = Context::Windows { stride: options.seq_len };
    Ok(tally.finish(options.context == whole, tokens.bytes_per_token()))
}

/// A window of `len` predictions, of which the first `skip` have been made before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    start: usize,
    len: usize,
    skip: usize,
}

/// Windows that together predict every token but the first once.
fn windows(tokens: usize, seq_len: usize, stride: usize) -> Vec<Window> {
    let mut windows = Vec::new();
    let (mut start, mut predicted) = (0, 0);
    while predicted + 1 < tokens {
        let end = (start + seq_len).min(tokens - 1);
        windows.push(Window { start, len: end - start, skip: predicted - start });
        predicted = end;
        start += stride.min(seq_len);
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::{Context, Options, Window, evaluate, windows};
    use crate::config::{DataConfig, LayerKind, LossOn, ModelConfig};
    use crate::data::{Corpus, Mark, Split};
    use crate::model::{Model, ModelError};
    use std::f64::consts::LN_2;
    use tch::{Device, Kind, Tensor};

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
        let ids: Vec<i64> = bytes[t - context..=t].iter().copied().map(i64::from).collect();
        let logits = model.forward(&Tensor::from_slice(&ids[..context]).unsqueeze(0))?;
        let likelihoods = logits.select(1, -1).log_softmax(-1, None::<Kind>);
        Ok(-likelihoods.double_value(&[0, ids[context]]) / LN_2)
    }

    fn options(seq_len: usize, context: Context, rows: usize) -> Options {
        Options { seq_len, context, rows, loss_on: LossOn::All }
    }

    #[test]
    fn every_prediction_knows_what_its_context_says() -> Result<(), ModelError> {
        let (model, bytes) = (model(), bytes(45));
        for (seq_len, stride) in [(8, 8), (8, 3), (1, 1), (64, 64)] {
            for rows in [1, 4] {
                let context = Context::Windows { stride };
                let options = options(seq_len, context, rows);
                let mut heard = Vec::new();
                let evaluation = evaluate(&model, &bytes[..], &options, &mut |done, all| {
                    heard.push((done, all));
                })?;
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
            evaluate(&model, &bytes[..], &options(seq_len, context, 1), &mut |_, _| {})
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
    fn answers_count_where_their_line_is_known() -> Result<(), Box<dyn std::error::Error>> {
        let data = DataConfig {
            source: "synthetic:recall".parse()?,
            train_bytes: Some(400),
            ..DataConfig::default()
        };
        let corpus = Corpus::open(&data)?;
        let (tokens, bytes) = (corpus.tokens(Split::Train), corpus.split(Split::Train));
        let model = model();
        let run = |seq_len, context, loss_on| {
            let options = Options { loss_on, ..options(seq_len, context, 3) };
            evaluate(&model, tokens, &options, &mut |_, _| {})
        };
        let carried = run(50, Context::Carried, LossOn::Answers)?;
        let answers = carried.answers.unwrap();
        let known = tokens.marks(0, bytes.len(), 0).unwrap();
        let places: Vec<usize> = (0..bytes.len()).filter(|n| known[*n] == Mark::Answer).collect();
        assert_eq!(answers.tokens, places.len() as u64);
        assert_eq!(carried.tokens, answers.tokens);
        // The mean is over the answers, and the right ones are those that are likeliest.
        let mut mean = 0.0;
        let mut right = 0;
        let ids: Vec<i64> = bytes.iter().copied().map(i64::from).collect();
        for &t in &places {
            mean += bits(&model, bytes, t, t)? / places.len() as f64;
            let logits = model.forward(&Tensor::from_slice(&ids[..t]).unsqueeze(0))?;
            right += u64::from(logits.select(1, -1).argmax(-1, false).int64_value(&[0]) == ids[t]);
        }
        assert!((carried.bpc - mean).abs() < 1e-4, "{} {mean}", carried.bpc);
        assert_eq!(answers.right_tokens, right);
        let lines = bytes.split(|byte| *byte == b'\n').count() as u64 - 1;
        assert_eq!(answers.lines, lines);

        // All of it in one window knows as much; windows that cut lines know less, and steps of one token as much as
        // a window holds.
        let count = |seq_len, stride| -> Result<[u64; 2], ModelError> {
            let context = Context::Windows { stride };
            let answers = run(seq_len, context, LossOn::All)?.answers.unwrap();
            Ok([answers.tokens, answers.lines])
        };
        assert_eq!(count(400, 400)?, [answers.tokens, lines]);
        let [cut_tokens, cut_lines] = count(70, 70)?;
        assert!(0 < cut_tokens && cut_tokens < answers.tokens);
        assert!(0 < cut_lines && cut_lines < lines);
        // Every line is shorter than 100 bytes, so that a window of 100 behind it holds all of it.
        assert_eq!(count(100, 1)?, [answers.tokens, lines]);
        assert_eq!(count(3, 3)?, [0, 0]);
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
