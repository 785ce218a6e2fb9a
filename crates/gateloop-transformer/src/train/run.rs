//! A run: steps, records, validations, checkpoints and samples, each at its interval.

use super::ema::Ema;
use super::gates::{GateMemory, gate_memory};
use super::memory;
use super::norms::Norms;
use super::output::Output;
use super::validation::validate_together;
use super::{Interrupt, Observer, RunFolder, Tick, TrainError, Trainer};
use crate::checkpoint::{self, Best, RunProgress, TrainingState};
use crate::config::Config;
use crate::data::{Batch, Corpus, Split};
use crate::evaluate::Validation;
use crate::generate::{self, Generator, Sampler};
use crate::metrics::Record;
use crate::model::Model;
use crate::ranks::Ranks;
use std::f64::consts::LN_2;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tch::Device;

/// A run in its folder, ready to go.
#[derive(Debug)]
pub struct Run {
    pub(super) folder: RunFolder,
    /// Of the first rank; the others write nothing.
    pub(super) output: Option<Output>,
    pub(super) ranks: Arc<Ranks>,
    pub(super) config: Config,
    pub(super) corpus: Corpus,
    /// Of the corpus.
    pub(super) fingerprint: String,
    pub(super) valid_windows: Option<Batch>,
    pub(super) trainer: Trainer,
    /// Seconds spent by earlier parts of the run.
    pub(super) time_before: f64,
    pub(super) started: Instant,
    pub(super) checkpointed: Option<(u64, PathBuf)>,
    /// The last validation: its step and its bits per character.
    pub(super) validated: Option<(u64, f64)>,
    pub(super) best: Option<Best>,
    pub(super) since_record: SinceRecord,
}

/// What to do where the data of a run is not what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChangedData {
    /// Refuse to go on.
    #[default]
    Refuse,
    /// Go on with the data as it is, at the place in it where the run was.
    Allow,
}

/// What has been added up since the last record.
#[derive(Debug, Default)]
pub(super) struct SinceRecord {
    loss: f64,
    steps: u64,
    /// Time in training steps alone, so that validations do not count as slowness.
    seconds: f64,
    /// Time of the model and the optimiser: in steps and in what was asked of them beside.
    model_s: f64,
    /// Time in which the ranks exchanged gradients.
    exchange_s: f64,
    /// When it began; `None` before the first step.
    begun: Option<Instant>,
    grad_norm: f64,
    norms: Norms,
    gates: Vec<GateMemory>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// It was asked to stop; the checkpoint holds everything.
    Interrupted,
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Summary {
    /// How it ended.
    pub outcome: Outcome,
    /// Steps done.
    pub step: u64,
    /// The last validation, in bits per character.
    pub valid_bpc: Option<f64>,
    /// The last checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// Seconds, over all parts of the run.
    pub time_s: f64,
}

impl Run {
    /// The folder of the run.
    pub fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// The data of the run.
    pub fn corpus(&self) -> &Corpus {
        &self.corpus
    }

    /// The newest checkpoint of the run.
    pub fn last_checkpoint(&self) -> Option<&Path> {
        self.checkpointed.as_ref().map(|(_, path)| path.as_path())
    }

    /// The model in training.
    pub fn model(&self) -> &Model {
        self.trainer.model()
    }

    /// Steps done so far.
    pub fn steps_done(&self) -> u64 {
        self.trainer.steps_done()
    }

    /// Trains to the last step, or until interrupted, and leaves a checkpoint either way.
    pub fn train(
        &mut self,
        observer: &mut dyn Observer,
        interrupt: &Interrupt,
    ) -> Result<Summary, TrainError> {
        let ranks = Arc::clone(&self.ranks);
        self.all_steps(observer, interrupt).inspect_err(|error| ranks.fail(&error.to_string()))
    }

    fn all_steps(
        &mut self,
        observer: &mut dyn Observer,
        interrupt: &Interrupt,
    ) -> Result<Summary, TrainError> {
        let steps = self.config.train.steps;
        let is_alone = self.ranks.count() == 1;
        let mut validation = None;
        let mut stops = is_alone && interrupt.is_requested();
        while self.trainer.step < steps && !stops {
            let step = self.trainer.step + 1;
            let due = |every: u64| every > 0 && (step.is_multiple_of(every) || step == steps);
            let train = &self.config.train;
            let (log, validate) = (due(train.log_every), due(train.validate_every));
            let (norms, gates) = (due(train.norms_every), due(train.gates_every));
            let (save, sample) = (due(train.checkpoint_every), due(train.sample_every));
            // All ranks must stop after the same step, so each tells the others before it.
            let all_stop = self.one_step(norms, interrupt, observer)?;
            if validate {
                let begun = Instant::now();
                validation = self.validate()?;
                self.since_record.model_s += begun.elapsed().as_secs_f64();
            }
            if gates && self.output.is_some() {
                self.since_record.gates = self.measure_gates()?;
            }
            if log || validate || norms || gates {
                self.record(validation.filter(|_| validate), observer)?;
            }
            if validate || gates {
                self.plot()?;
            }
            if sample && self.output.is_some() {
                let begun = Instant::now();
                self.sample(observer)?;
                self.since_record.model_s += begun.elapsed().as_secs_f64();
            }
            if save {
                self.save()?;
            }
            stops = if is_alone { interrupt.is_requested() } else { all_stop };
        }
        if self.checkpointed.as_ref().is_none_or(|(step, _)| *step != self.trainer.step) {
            self.save()?;
        }
        self.plot()?;
        let finished = self.trainer.step >= steps;
        Ok(Summary {
            outcome: if finished { Outcome::Finished } else { Outcome::Interrupted },
            step: self.trainer.step,
            valid_bpc: validation
                .map(|validation| validation.bpc(self.bytes_per_token(Split::Valid))),
            checkpoint: self.last_checkpoint().map(Path::to_owned),
            time_s: self.time_s(),
        })
    }

    /// Gives whether a rank wants to stop after this step.
    fn one_step(
        &mut self,
        norms: bool,
        interrupt: &Interrupt,
        observer: &mut dyn Observer,
    ) -> Result<bool, TrainError> {
        let begun = Instant::now();
        self.since_record.begun.get_or_insert(begun);
        if norms {
            self.since_record.norms = Norms::default();
        }
        let norms = norms.then_some(&mut self.since_record.norms);
        let report = self.trainer.update(norms, interrupt.is_requested())?;
        self.since_record.loss += report.loss;
        self.since_record.steps += 1;
        self.since_record.seconds += begun.elapsed().as_secs_f64();
        self.since_record.model_s += report.model_s;
        self.since_record.exchange_s += report.exchange_s;
        self.since_record.grad_norm = report.grad_norm;
        observer.tick(&Tick {
            step: self.trainer.step,
            steps: self.config.train.steps,
            loss: report.loss,
            bpc: report.loss / LN_2 / self.bytes_per_token(Split::Train),
            tokens: self.tokens_per_step(),
        });
        Ok(report.stops)
    }

    /// Tokens that all ranks together learn from in a step.
    pub fn tokens_per_step(&self) -> u64 {
        self.config.train.tokens_per_step() * self.trainer.data_ranks() as u64
    }

    fn validate(&mut self) -> Result<Option<Validation>, TrainError> {
        let Some(windows) = &self.valid_windows else { return Ok(None) };
        let (train, ranks) = (&self.config.train, &self.ranks);
        let validation =
            self.trainer.with_averages(|model| validate_together(model, windows, train, ranks))?;
        let bpc = validation.bpc(self.bytes_per_token(Split::Valid));
        self.validated = Some((self.trainer.step, bpc));
        Ok(Some(validation))
    }

    /// On the first windows of the validation, as many as are trained on at once, or on the first slice of them.
    fn measure_gates(&mut self) -> Result<Vec<GateMemory>, TrainError> {
        let rows = self.config.train.batch_size;
        let Some(windows) = self.valid_windows.as_ref().and_then(|all| all.chunks(rows).next())
        else {
            return Ok(Vec::new());
        };
        let windows = windows.slice(0, self.ranks.sequence().size());
        self.trainer.with_averages(|model| Ok(gate_memory(model, &windows)?))
    }

    fn record(
        &mut self,
        validation: Option<Validation>,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let next = SinceRecord { begun: Some(Instant::now()), ..SinceRecord::default() };
        let since = std::mem::replace(&mut self.since_record, next);
        let wall_s = since.begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64());
        let tokens = since.steps * self.tokens_per_step();
        let loss = since.loss / since.steps as f64;
        let mut record = Record::new(self.trainer.step, self.time_s())
            .with("train/loss", loss)
            .with("train/bpc", loss / LN_2 / self.bytes_per_token(Split::Train))
            .with("tokens", (self.trainer.step * self.tokens_per_step()) as f64)
            .with("lr", self.trainer.lr())
            .with("grad_norm", since.grad_norm)
            .with("tokens_per_s", tokens as f64 / since.seconds)
            .with("overhead", (1.0 - since.model_s / wall_s).max(0.0));
        if let Some(validation) = validation {
            let bpc = validation.bpc(self.bytes_per_token(Split::Valid));
            record = record.with("valid/bpc", bpc).with("valid/loss", validation.loss);
            if let Some(answers) = validation.answers {
                record = record.with("valid/accuracy", answers.of_tokens());
            }
        }
        if self.ranks.count() > 1 {
            let exchange = since.exchange_s / since.seconds;
            record = record.with("ranks", self.ranks.count() as f64).with("exchange", exchange);
        }
        // What a GPU holds is not the process's own.
        if let (Device::Cpu, Some(bytes)) = (self.model().device(), memory::peak_bytes()) {
            record = record.with("memory_bytes", bytes as f64);
        }
        record.values.extend(since.norms.entries());
        record = since.gates.into_iter().fold(record, |record, gates| gates.add_to(record));
        if let Some(output) = &mut self.output {
            output.record(&record)?;
        }
        observer.record(&record);
        Ok(())
    }

    fn save(&mut self) -> Result<(), TrainError> {
        let step = self.trainer.step;
        let valid_bpc = self.validated.filter(|(at, _)| *at == step).map(|(_, bpc)| bpc);
        // An average that is not a number is below nothing.
        if let Some(bpc) = valid_bpc
            && self.best.is_none_or(|best| bpc < best.bpc)
        {
            self.best = Some(Best { step, bpc });
        }
        let progress = RunProgress {
            step,
            time_s: self.time_s(),
            sampler: self.trainer.feed.windows.state(),
            valid_bpc,
            best: self.best,
            data: Some(self.fingerprint.clone()),
            data_ranks: Some(self.trainer.data_ranks()),
        };
        let folder = self.folder.checkpoints();
        let path = folder.file(step);
        let state = TrainingState {
            optimizer: self.trainer.optimizer.state()?,
            averages: self.trainer.ema.as_ref().map(Ema::state).unwrap_or_default(),
            carried: self.trainer.feed.carried()?,
            vocabulary: self.corpus.vocabulary().clone(),
        };
        // What the ranks have a share of each was put together above.
        if self.output.is_none() {
            self.checkpointed = Some((step, path));
            return Ok(());
        }
        checkpoint::save(&path, &self.config, &progress, self.trainer.model(), &state)?;
        self.checkpointed = Some((step, path));
        let best = self.best.map(|best| best.step);
        Ok(folder.prune(self.config.train.keep_checkpoints, best)?)
    }

    fn sample(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let generate = &self.config.generate;
        let seed = generate.seed.unwrap_or(self.config.train.seed);
        let prompt = self.sample_prompt();
        let sampler = Sampler::configured(generate, self.config.model.num_tokens, seed);
        let tokens = generate.tokens;
        let written = self.trainer.with_averages(|model| {
            let mut generator = Generator::new(model, &prompt, sampler)?;
            let mut decoder = self.corpus.vocabulary().decoder();
            let mut text = generate::TextStream::default();
            let mut written = String::new();
            for token in &prompt {
                written.push_str(&text.push_bytes(&decoder.push(*token)));
            }
            for _ in 0..tokens {
                written.push_str(&text.push_bytes(&decoder.push(generator.next_token()?)));
            }
            Ok(written + &text.push_bytes(&decoder.finish()) + &text.finish())
        })?;
        self.folder.write_sample(self.trainer.step, &written)?;
        observer.sample(self.trainer.step, &written);
        Ok(())
    }

    /// The beginning of the validation split, as long as the reference's prime.
    fn sample_prompt(&self) -> Vec<i64> {
        const PROMPT_LEN: usize = 128;
        let tokens = self.corpus.tokens(Split::Valid);
        let mut prompt = Vec::new();
        tokens.copy_to(0, PROMPT_LEN.min(tokens.len()), &mut prompt);
        prompt
    }

    /// Of a split; 1 where tokens are bytes.
    fn bytes_per_token(&self, split: Split) -> f64 {
        self.corpus.tokens(split).bytes_per_token()
    }

    fn plot(&self) -> Result<(), TrainError> {
        self.output.as_ref().map_or(Ok(()), Output::plot)
    }

    fn time_s(&self) -> f64 {
        self.time_before + self.started.elapsed().as_secs_f64()
    }
}
