//! What a run learns from: stretches with a carried state, tasks and their answers, documents.

use crate::common::{TestResult, values};
use crate::stop_at::StopAt;
use crate::{everything, losses, small_run, train};
use gateloop_transformer::data::{Corpus, DataError, Mark, Split, WindowSampler};
use gateloop_transformer::metrics;
use gateloop_transformer::model::{LossInput, Model};
use gateloop_transformer::train::{
    ChangedData, ExistingFolder, Interrupt, Observer, Outcome, Quiet, Run, TrainError,
};
use std::fs;
use tch::{Device, Tensor};

#[test]
fn carried_states_go_on_from_window_to_window_and_over_a_resumption() -> TestResult {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let sequential = ["train.window_order=sequential", "train.lr=1e-9"];
    let carry = [&sequential[..], &["train.carry_state=true"]].concat();
    train(&at("carried"), &small_run(&carry))?;
    train(&at("forgetful"), &small_run(&sequential))?;
    let (carried, forgetful) = (losses(&at("carried")), losses(&at("forgetful")));
    // The first windows have nothing before them.
    assert!((carried[0].1 - forgetful[0].1).abs() < 1e-5);
    // The weights stand still, so the losses are those of one window over everything that was read.
    let config = small_run(&carry);
    let corpus = Corpus::open(&config.data)?;
    let model = Model::seeded(&config.model, Device::Cpu, config.train.seed)?;
    let bytes = corpus.split(Split::Train);
    let (stretch, len) = (bytes.len() / 4, 6 * 32);
    let windows: Vec<i64> = (0..4)
        .flat_map(|stream| bytes[stream * stretch..][..=len].iter().copied().map(i64::from))
        .collect();
    let windows = Tensor::from_slice(&windows).view([4, len as i64 + 1]);
    let whole = tch::no_grad(|| model.loss(&windows))?.double_value(&[]);
    let mean = carried.iter().map(|(_, loss)| loss).sum::<f64>() / 6.0;
    let forgetful = forgetful.iter().map(|(_, loss)| loss).sum::<f64>() / 6.0;
    assert!((whole - mean).abs() * 20.0 < (whole - forgetful).abs(), "{whole} {mean} {forgetful}");

    let interrupt = Interrupt::default();
    let parts = at("parts");
    Run::start(&parts, &config, ExistingFolder::Keep)?
        .train(&mut StopAt(2, interrupt.clone()), &interrupt)?;
    Run::resume(&parts, &config, ChangedData::Refuse, &mut Quiet)?
        .train(&mut Quiet, &Interrupt::default())?;
    assert_eq!(losses(&parts), carried);
    assert_eq!(everything(&parts, 6), everything(&at("carried"), 6));
    Ok(())
}

/// Keeps what is said.
#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn note(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
}

#[test]
fn stretches_that_are_cut_anew_are_read_from_their_beginnings() -> TestResult {
    let folder = tempfile::tempdir()?;
    let carry = ["train.window_order=sequential", "train.carry_state=true"];
    train(folder.path(), &small_run(&carry))?;
    for (key, change) in [
        ("train.batch_size", "train.batch_size=3"),
        ("train.grad_accum", "train.grad_accum=1"),
        ("train.seq_len", "train.seq_len=16"),
    ] {
        let steps =
            Run::resume(folder.path(), &small_run(&carry), ChangedData::Refuse, &mut Quiet)?
                .steps_done();
        let longer = format!("train.steps={}", steps + 2);
        let changed = small_run(&[&carry[..], &[change, &longer]].concat());
        let mut notes = Notes::default();
        let mut run = Run::resume(folder.path(), &changed, ChangedData::Refuse, &mut notes)?;
        assert!(notes.0.iter().any(|note| note.contains(key)), "{:?}", notes.0);
        assert_eq!(run.train(&mut Quiet, &Interrupt::default())?.outcome, Outcome::Finished);
        fs::remove_dir_all(folder.path())?;
        train(folder.path(), &small_run(&carry))?;
    }
    Ok(())
}

/// The overrides of a run on a task whose answers are all that is learned.
const ANSWERS: [&str; 4] = [
    "data.source=synthetic:recall?pairs=4",
    "train.loss_on=answers",
    "train.batch_size=4",
    "train.seq_len=48",
];

#[test]
fn the_loss_on_answers_is_the_mean_of_their_losses() -> TestResult {
    let folder = tempfile::tempdir()?;
    let config = small_run(&[&ANSWERS[..], &["train.steps=1", "train.grad_accum=1"]].concat());
    train(folder.path(), &config)?;
    let corpus = Corpus::open(&config.data)?;
    let model = Model::seeded(&config.model, Device::Cpu, config.train.seed)?;
    let batch = WindowSampler::new(&corpus, Split::Train, 48, config.train.seed)?.next_batch(4);
    let windows = Tensor::from_slice(&batch.ids).view([4, 49]);
    let logits = tch::no_grad(|| model.forward(&windows.narrow(1, 0, 48)))?;
    let log_p = values(&logits.log_softmax(-1, tch::Kind::Double));
    let (mut sum, mut count) = (0.0, 0.0);
    for (place, mark) in batch.marks.unwrap().into_iter().enumerate() {
        let (row, column) = (place / 49, place % 49);
        if mark == Mark::Answer && column > 0 {
            sum -= log_p[(row * 48 + column - 1) * 256 + batch.ids[place] as usize];
            count += 1.0;
        }
    }
    assert!(count > 4.0);
    let loss = losses(folder.path())[0].1;
    assert!((loss - sum / count).abs() < 1e-4, "{loss} {}", sum / count);
    // Nothing is learned where there is no answer.
    let none = Tensor::zeros([4, 49], (tch::Kind::Bool, Device::Cpu));
    let input = LossInput { counts: Some(&none), ..LossInput::from(&windows) };
    let loss = model.loss_of(&input, None)?;
    loss.backward();
    assert_eq!(loss.double_value(&[]), 0.0);
    assert!(model.parameters().values().all(|p| values(&p.grad()).iter().all(|g| *g == 0.0)));
    Ok(())
}

#[test]
fn tasks_record_their_accuracy_and_resume_bit_for_bit() -> TestResult {
    let folder = tempfile::tempdir()?;
    let carried = ["train.window_order=sequential", "train.carry_state=true"];
    for (name, more) in [("random", &[][..]), ("carried", &carried[..])] {
        let config = small_run(&[&ANSWERS[..], more].concat());
        let (whole, parts) = (folder.path().join(name), folder.path().join(format!("{name}-2")));
        train(&whole, &config)?;
        let records = metrics::read(whole.join("metrics.jsonl"))?;
        let accuracies: Vec<f64> =
            records.iter().filter_map(|r| r.values.get("valid/accuracy").copied()).collect();
        assert_eq!(accuracies.len(), 2);
        assert!(accuracies.iter().all(|accuracy| (0.0..=1.0).contains(accuracy)));
        let interrupt = Interrupt::default();
        Run::start(&parts, &config, ExistingFolder::Keep)?
            .train(&mut StopAt(2, interrupt.clone()), &interrupt)?;
        Run::resume(&parts, &config, ChangedData::Refuse, &mut Quiet)?
            .train(&mut Quiet, &Interrupt::default())?;
        assert_eq!(losses(&parts), losses(&whole));
        assert_eq!(everything(&parts, 6), everything(&whole, 6));
    }
    // Text has no accuracy.
    let text = folder.path().join("text");
    train(&text, &small_run(&[]))?;
    let records = metrics::read(text.join("metrics.jsonl"))?;
    assert!(records.iter().all(|record| !record.values.contains_key("valid/accuracy")));
    Ok(())
}

#[test]
fn a_task_is_learned() -> TestResult {
    let folder = tempfile::tempdir()?;
    let config = small_run(&[
        "data.source=synthetic:memory_horizon?len=4&values=2",
        "train.loss_on=answers",
        "train.steps=120",
        "train.batch_size=8",
        "train.lr=1e-2",
        "train.validate_every=120",
        "train.validate_windows=64",
    ]);
    train(folder.path(), &config)?;
    let records = metrics::read(folder.path().join("metrics.jsonl"))?;
    let accuracy = records.last().unwrap().values["valid/accuracy"];
    // Always saying 1, or the last digit, or the largest of the line, is right less than three times in four.
    assert!(accuracy > 0.9, "{accuracy}");
    Ok(())
}

#[test]
fn windows_that_hold_no_answer_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = small_run(&["data.source=synthetic:selective_copy", "train.loss_on=answers"]);
    let error = train(folder.path(), &config).unwrap_err();
    assert!(matches!(error, TrainError::Data(DataError::NoAnswers { .. })), "{error}");
    assert!(error.to_string().contains("32 tokens (train.seq_len)"), "{error}");
}

#[test]
fn documents_are_learned_apart() -> TestResult {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let documents = ["data.documents=\"separator:. \"", "train.grad_accum=3"];
    let config = small_run(&documents);
    train(&at("apart"), &config)?;
    // The loss of the first step is the mean over all that is predicted, each from its own document alone.
    let corpus = Corpus::open(&config.data)?;
    let model = Model::seeded(&config.model, Device::Cpu, config.train.seed)?;
    let batch = WindowSampler::new(&corpus, Split::Train, 32, config.train.seed)?.next_batch(6);
    let starts = batch.document_starts.ok_or("documents are known")?;
    let (mut sum, mut count, mut documents) = (0.0, 0.0, 0);
    for (ids, starts) in batch.ids.chunks(33).zip(starts.chunks(33)) {
        let mut edges: Vec<usize> = (1..33).filter(|n| starts[*n]).collect();
        edges.insert(0, 0);
        edges.push(33);
        documents += edges.len() - 1;
        for edge in edges.windows(2).filter(|edge| edge[1] - edge[0] > 1) {
            let window = Tensor::from_slice(&ids[edge[0]..edge[1]]).unsqueeze(0);
            let number = (edge[1] - edge[0] - 1) as f64;
            sum += tch::no_grad(|| model.loss(&window))?.double_value(&[]) * number;
            count += number;
        }
    }
    assert!(documents > 6, "some document begins inside a window");
    let loss = losses(&at("apart"))[0].1;
    assert!((loss - sum / count).abs() < 1e-5, "{loss} {}", sum / count);

    // And with a state that goes from window to window, over an interruption.
    let carried = ["train.window_order=sequential", "train.carry_state=true"];
    let config = small_run(&[&["data.documents=\"separator:. \""][..], &carried].concat());
    train(&at("whole"), &config)?;
    let interrupt = Interrupt::default();
    Run::start(&at("parts"), &config, ExistingFolder::Keep)?
        .train(&mut StopAt(2, interrupt.clone()), &interrupt)?;
    Run::resume(&at("parts"), &config, ChangedData::Refuse, &mut Quiet)?
        .train(&mut Quiet, &Interrupt::default())?;
    assert_eq!(everything(&at("parts"), 6), everything(&at("whole"), 6));
    Ok(())
}
