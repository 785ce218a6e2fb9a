//! A run: steps, records, validations, checkpoints and samples, each at its interval.

use super::ema::Ema;
use super::gates::{GateMemory, gate_memory};
use super::lock::FolderLock;
use super::memory;
use super::norms::Norms;
use super::prepared::Prepared;
use super::{ExistingFolder, Interrupt, Observer, RunFolder, Tick, TrainError, Trainer};
use crate::checkpoint::{self, Best, CheckpointError, RunProgress, TrainingState};
use crate::config::Config;
use crate::data::{Batch, Corpus, DataError, Split};
use crate::evaluate::{Validation, validate};
use crate::generate::{self, Generator, Sampler};
use crate::metrics::{self, EventWriter, MetricsError, MetricsWriter, Record, plot};
use crate::model::Model;
use crate::vocabulary::Vocabulary;
use std::f64::consts::LN_2;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tch::Device;

/// A run in its folder, ready to go.
#[derive(Debug)]
pub struct Run {
    folder: RunFolder,
    _lock: FolderLock,
    config: Config,
    corpus: Corpus,
    /// Of the corpus.
    fingerprint: String,
    valid_windows: Option<Batch>,
    trainer: Trainer,
    metrics: MetricsWriter,
    tensorboard: Option<EventWriter>,
    /// Seconds spent by earlier parts of the run.
    time_before: f64,
    started: Instant,
    checkpointed: Option<(u64, PathBuf)>,
    /// The last validation: its step and its bits per character.
    validated: Option<(u64, f64)>,
    best: Option<Best>,
    since_record: SinceRecord,
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
struct SinceRecord {
    loss: f64,
    steps: u64,
    /// Time in training steps alone, so that validations do not count as slowness.
    seconds: f64,
    /// Time of the model and the optimiser: in steps and in what was asked of them beside.
    model_s: f64,
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
    /// Starts a run in a new folder.
    pub fn start(
        path: &Path,
        config: &Config,
        existing: ExistingFolder,
    ) -> Result<Self, TrainError> {
        // Everything that can be refused is refused before the folder is touched.
        let prepared =
            Prepared::new(config, Vocabulary::of(&config.data).map_err(DataError::from)?)?;
        let folder = RunFolder::create_locked(path, config, existing)?;
        let metrics = MetricsWriter::create(folder.0.metrics())?;
        Self::new(folder, config, prepared, metrics)
    }

    /// Starts a run whose folder is there, from step 0.
    fn begin_anew(folder: (RunFolder, FolderLock), config: &Config) -> Result<Self, TrainError> {
        let prepared =
            Prepared::new(config, Vocabulary::of(&config.data).map_err(DataError::from)?)?;
        folder.0.write_config(config)?;
        folder.0.checkpoints().create()?;
        let metrics = MetricsWriter::create(folder.0.metrics())?;
        Self::new(folder, config, prepared, metrics)
    }

    fn new(
        (folder, lock): (RunFolder, FolderLock),
        config: &Config,
        prepared: Prepared,
        metrics: MetricsWriter,
    ) -> Result<Self, TrainError> {
        let tensorboard = config.train.tensorboard.then(|| {
            // What was recorded by earlier parts of the run, and not what a crash took back.
            EventWriter::create(folder.tensorboard(), &metrics::read(folder.metrics())?)
        });
        Ok(Self {
            tensorboard: tensorboard.transpose()?,
            folder,
            _lock: lock,
            config: config.clone(),
            corpus: prepared.corpus,
            fingerprint: prepared.fingerprint,
            valid_windows: prepared.valid_windows,
            trainer: prepared.trainer,
            metrics,
            time_before: 0.0,
            started: Instant::now(),
            checkpointed: None,
            validated: None,
            best: None,
            since_record: SinceRecord::default(),
        })
    }

    /// Goes on with the run in a folder from its newest whole checkpoint, under `config`.
    ///
    /// Damaged checkpoints are passed over; the observer is told.
    pub fn resume(
        path: &Path,
        config: &Config,
        changed_data: ChangedData,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        let folder = RunFolder::existing(path)?;
        let lock = FolderLock::new(path)?;
        folder.checkpoints().create()?;
        folder.sweep()?;
        let opened = match folder.checkpoints().newest() {
            Err(CheckpointError::None { damaged: 0, .. }) => {
                observer.note("no checkpoint had been written yet: the run begins anew");
                return Self::begin_anew((folder, lock), config);
            }
            opened => opened?,
        };
        for error in &opened.passed_over {
            observer.note(&format!("passed over a damaged checkpoint: {error}"));
        }
        let checkpoint = opened.checkpoint;
        let progress = checkpoint.progress().clone();
        let mut prepared = Prepared::new(config, checkpoint.vocabulary_for(&config.data)?)?;
        prepared.check_data(&checkpoint, config, changed_data, observer)?;
        prepared.restore(&checkpoint, config, observer)?;
        // Steps after the checkpoint will be done again, and recorded again.
        metrics::truncate_after(folder.metrics(), progress.step)?;
        let metrics = MetricsWriter::append(folder.metrics())?;
        folder.write_config(config)?;
        observer.note(&format!(
            "resumed at step {} from {}",
            progress.step,
            checkpoint.path().display()
        ));
        let mut run = Self::new((folder, lock), config, prepared, metrics)?;
        run.time_before = progress.time_s;
        run.validated = progress.valid_bpc.map(|bpc| (progress.step, bpc));
        run.best = progress.best;
        run.checkpointed = Some((progress.step, checkpoint.path().to_owned()));
        Ok(run)
    }

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
        let steps = self.config.train.steps;
        let mut validation = None;
        while self.trainer.step < steps && !interrupt.is_requested() {
            let step = self.trainer.step + 1;
            let due = |every: u64| every > 0 && (step.is_multiple_of(every) || step == steps);
            let train = &self.config.train;
            let (log, validate) = (due(train.log_every), due(train.validate_every));
            let (norms, gates) = (due(train.norms_every), due(train.gates_every));
            let (save, sample) = (due(train.checkpoint_every), due(train.sample_every));
            self.one_step(norms, observer)?;
            if validate {
                let begun = Instant::now();
                validation = self.validate()?;
                self.since_record.model_s += begun.elapsed().as_secs_f64();
            }
            if gates {
                self.since_record.gates = self.measure_gates()?;
            }
            if log || validate || norms || gates {
                self.record(validation.filter(|_| validate), observer)?;
            }
            if validate || gates {
                self.plot()?;
            }
            if sample {
                let begun = Instant::now();
                self.sample(observer)?;
                self.since_record.model_s += begun.elapsed().as_secs_f64();
            }
            if save {
                self.save()?;
            }
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

    fn one_step(&mut self, norms: bool, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let begun = Instant::now();
        self.since_record.begun.get_or_insert(begun);
        let report = if norms {
            let (report, norms) = self.trainer.train_step_with_norms()?;
            self.since_record.norms = norms;
            report
        } else {
            self.trainer.train_step()?
        };
        self.since_record.loss += report.loss;
        self.since_record.steps += 1;
        self.since_record.seconds += begun.elapsed().as_secs_f64();
        self.since_record.model_s += report.model_s;
        self.since_record.grad_norm = report.grad_norm;
        observer.tick(&Tick {
            step: self.trainer.step,
            steps: self.config.train.steps,
            loss: report.loss,
            bpc: report.loss / LN_2 / self.bytes_per_token(Split::Train),
            tokens: self.config.train.tokens_per_step(),
        });
        Ok(())
    }

    fn validate(&mut self) -> Result<Option<Validation>, TrainError> {
        let Some(windows) = &self.valid_windows else { return Ok(None) };
        let (rows, loss_on) = (self.config.train.batch_size, self.config.train.loss_on);
        let validation =
            self.trainer.with_averages(|model| Ok(validate(model, windows, rows, loss_on)?))?;
        let bpc = validation.bpc(self.bytes_per_token(Split::Valid));
        self.validated = Some((self.trainer.step, bpc));
        Ok(Some(validation))
    }

    /// On the first windows of the validation, as many as are trained on at once.
    fn measure_gates(&mut self) -> Result<Vec<GateMemory>, TrainError> {
        let rows = self.config.train.batch_size;
        let Some(windows) = self.valid_windows.as_ref().and_then(|all| all.chunks(rows).next())
        else {
            return Ok(Vec::new());
        };
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
        let tokens = since.steps * self.config.train.tokens_per_step();
        let loss = since.loss / since.steps as f64;
        let mut record = Record::new(self.trainer.step, self.time_s())
            .with("train/loss", loss)
            .with("train/bpc", loss / LN_2 / self.bytes_per_token(Split::Train))
            .with("tokens", (self.trainer.step * self.config.train.tokens_per_step()) as f64)
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
        // What a GPU holds is not the process's own.
        if let (Device::Cpu, Some(bytes)) = (self.model().device(), memory::peak_bytes()) {
            record = record.with("memory_bytes", bytes as f64);
        }
        record.values.extend(since.norms.entries());
        record = since.gates.into_iter().fold(record, |record, gates| gates.add_to(record));
        self.metrics.write(&record)?;
        if let Some(tensorboard) = &mut self.tensorboard {
            tensorboard.write(&record)?;
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
        };
        let folder = self.folder.checkpoints();
        let path = folder.file(step);
        let state = TrainingState {
            optimizer: self.trainer.optimizer.state(),
            averages: self.trainer.ema.as_ref().map(Ema::state).unwrap_or_default(),
            carried: self.trainer.feed.carried()?,
            vocabulary: self.corpus.vocabulary().clone(),
        };
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
        let records = metrics::read(self.folder.metrics())?;
        let run = plot::Run { name: "", records: &records };
        let title = self.folder.path().display().to_string();
        for extension in ["svg", "png"] {
            let loss = self.folder.plot().with_extension(extension);
            let gates = self.folder.gates_plot().with_extension(extension);
            for drawn in [
                plot::loss_curve(&[run], plot::Axis::Step, &title, loss),
                plot::gate_memory(&records, &title, gates),
            ] {
                match drawn {
                    // A run of which nothing was recorded has no picture, and that is as was asked for.
                    Err(MetricsError::NothingToDraw { .. } | MetricsError::NoGates { .. }) => {}
                    result => result?,
                }
            }
        }
        Ok(())
    }

    fn time_s(&self) -> f64 {
        self.time_before + self.started.elapsed().as_secs_f64()
    }
}
