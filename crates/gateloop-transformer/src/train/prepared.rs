//! What a run needs before it has a folder: its data, its model, and both as a checkpoint left them.

use super::ema::Ema;
use super::{ChangedData, Observer, TrainError, Trainer, Windows};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::config::{Config, LossOn, TrainConfig, WindowOrder};
use crate::data::{Batch, Corpus, DataError, Split, StreamSampler, WindowSampler, fixed_windows};
use crate::device::device_of;
use crate::model::{Model, ModelError};
use crate::ranks::Ranks;
use crate::vocabulary::Vocabulary;
use std::sync::Arc;

/// All of it.
pub(super) struct Prepared {
    pub(super) corpus: Corpus,
    pub(super) fingerprint: String,
    /// The windows of the validation, if there is to be one.
    pub(super) valid_windows: Option<Batch>,
    /// At step 0.
    pub(super) trainer: Trainer,
}

impl Prepared {
    pub(super) fn new(
        config: &Config,
        vocabulary: Vocabulary,
        ranks: &Arc<Ranks>,
    ) -> Result<Self, TrainError> {
        let train = &config.train;
        // What needs no pass over the data comes first.
        vocabulary.check(config.model.num_tokens).map_err(DataError::from)?;
        let corpus = ranks.first_on_each_machine(|| {
            Corpus::open_with(&config.data, vocabulary).map_err(TrainError::from)
        })?;
        corpus.check_vocabulary(config.model.num_tokens)?;
        let (split, seq_len, seed) = (Split::Train, train.seq_len, train.seed);
        let share = ranks.share();
        let windows: Windows = match train.window_order {
            WindowOrder::Random => {
                WindowSampler::new(&corpus, split, seq_len, seed)?.shared(share).into()
            }
            WindowOrder::Sequential => {
                let streams = train.batch_size.saturating_mul(train.grad_accum);
                let streams = streams.saturating_mul(share.of);
                let sampler =
                    StreamSampler::new(&corpus, split, seq_len, streams, seed)?.shared(share);
                if train.carry_state { sampler.carried().into() } else { sampler.into() }
            }
        };
        let valid_windows = (train.validate_every > 0)
            .then(|| fixed_windows(&corpus, Split::Valid, train.validate_windows, train.seq_len))
            .transpose()?;
        if train.loss_on == LossOn::Answers {
            check_answers(&corpus, config)?;
        }
        let fingerprint = corpus.fingerprint();
        ranks.agree("data", &fingerprint)?;
        let device = device_of(&train.device, ranks.local_rank())?;
        let model = Model::seeded(&config.model, device, train.seed)?;
        let trainer =
            Trainer::with_ranks(model, windows, train, (&config.dist, Arc::clone(ranks)))?;
        Ok(Self { corpus, fingerprint, valid_windows, trainer })
    }

    /// Refuses data that is not what a checkpoint was trained on, unless that is allowed.
    pub(super) fn check_data(
        &self,
        checkpoint: &Checkpoint,
        config: &Config,
        changed_data: ChangedData,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        // Older checkpoints, and imported weights, do not say.
        let Some(was) = checkpoint.progress().data.as_ref() else { return Ok(()) };
        if *was == self.fingerprint {
            return Ok(());
        }
        let (source_name, is) = (config.data.source.to_string(), self.fingerprint.clone());
        if changed_data == ChangedData::Refuse {
            return Err(TrainError::DataChanged { source_name, was: was.clone(), is });
        }
        observer.note(&format!("the data has changed: it was {was}, it is {is}"));
        Ok(())
    }

    /// Puts everything where it was at a checkpoint.
    pub(super) fn restore(
        &mut self,
        checkpoint: &Checkpoint,
        config: &Config,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let damaged =
            |source| CheckpointError::Tensors { path: checkpoint.path().to_owned(), source };
        let trainer = &mut self.trainer;
        checkpoint.load_model(&trainer.model)?;
        trainer.optimizer.load_state(&checkpoint.optimizer_tensors()?).map_err(damaged)?;
        let averages = checkpoint.averages()?;
        match &mut trainer.ema {
            Some(ema) if !averages.is_empty() => ema.load_state(&averages).map_err(damaged)?,
            Some(ema) => {
                *ema = Ema::new(&trainer.model.parameters(), config.train.ema_decay)
                    .map_err(ModelError::from)?;
                observer.note("the weights are averaged from this step on");
            }
            None if !averages.is_empty() => {
                observer.note("the weights are averaged no longer (train.ema_decay = 0)");
            }
            None => {}
        }
        let mut sampler = checkpoint.progress().sampler;
        let now = trainer.data_ranks();
        let before = checkpoint.progress().data_ranks.unwrap_or(1);
        if before != now {
            observer.note(&format!(
                "{now} in place of {before} groups of ranks: a step learns from {} tokens, not from {}",
                now as u64 * config.train.tokens_per_step(),
                before as u64 * checkpoint.config().train.tokens_per_step(),
            ));
        }
        let train = (&checkpoint.config().train, &config.train);
        if let Some(key) = changed_stretches(train, before != now) {
            observer.note(&format!(
                "{key} is another one than before: the data is cut into other stretches, which are read from \
                 their beginnings, without a state"
            ));
            sampler.drawn = 0;
        } else {
            trainer.feed.restore(&trainer.model, &checkpoint.carried()?)?;
        }
        trainer.feed.windows.restore(sampler);
        trainer.step = checkpoint.progress().step;
        // Files are read by every rank for itself.
        trainer.check_same()
    }
}

/// The key by which sequential windows are no longer those that they were, if there is one.
fn changed_stretches(
    (before, now): (&TrainConfig, &TrainConfig),
    has_other_ranks: bool,
) -> Option<&'static str> {
    let changes = [
        ("train.window_order", before.window_order != now.window_order),
        ("train.seq_len", before.seq_len != now.seq_len),
        ("train.batch_size", before.batch_size != now.batch_size),
        ("train.grad_accum", before.grad_accum != now.grad_accum),
        ("the number of ranks", has_other_ranks),
    ];
    let sequential = now.window_order == WindowOrder::Sequential;
    changes.into_iter().find(|(_, changed)| sequential && *changed).map(|(key, _)| key)
}

/// Refuses windows too short for an answer whose line begins in them: nothing would be learned, or validated.
fn check_answers(corpus: &Corpus, config: &Config) -> Result<(), DataError> {
    const LOOKED_AT: usize = 256;
    let train = &config.train;
    let validates = train.validate_every > 0;
    let of_training = (Split::Train, LOOKED_AT, !train.carry_state);
    let of_validation = (Split::Valid, train.validate_windows, validates);
    for (split, count, _) in [of_training, of_validation].into_iter().filter(|(.., is)| *is) {
        if !fixed_windows(corpus, split, count, train.seq_len)?.has_answers() {
            return Err(DataError::NoAnswers { split, seq_len: train.seq_len });
        }
    }
    Ok(())
}
