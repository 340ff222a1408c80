//! A PyTorch program as a worker: `examples/nanogpt` ends with the same bits as a plain loop, whatever happens to the
//! workers. Installs PyTorch and the Python package by itself.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use rustix::process::Signal;
use whimbrel_e2e::{
    process, programs,
    run::{Outcome, Run},
    spec::Spec,
};
use whimbrel_plan::Sampler;
use whimbrel_testbed::{PyTorch, available, process::finished};
use whimbrel_worker::{Checkpoint, Memory, TensorMut};

const STEPS: u64 = 180;
/// Of `Spec`.
const SEED: u64 = 7;
const GLOBAL_BATCH: u32 = 32;
const SHARDS: u32 = 16;
/// Of the example.
const CONTEXT: u64 = 64;
/// The longest that a program may train alone.
const ALONE: Duration = Duration::from_secs(300);

/// An interpreter with PyTorch and the package; `None` if PyTorch cannot be had here.
fn pytorch() -> Option<&'static PyTorch> {
    static PYTORCH: OnceLock<Option<PyTorch>> = OnceLock::new();
    let install = || {
        let pytorch = available(PyTorch::install())?;
        let wheel = available(pytorch.install_wheel(&programs::workspace().join("python")))?;
        assert!(wheel.to_string_lossy().contains("-cp310-abi3-"), "{}", wheel.display());
        let bytes = fs::metadata(pytorch.folder().join("wheels").join(&wheel)).unwrap().len();
        assert!(bytes < 15_000_000, "the wheel has {bytes} bytes");
        Some(pytorch)
    };
    PYTORCH.get_or_init(install).as_ref()
}

/// The example in a folder, with a part of its text.
struct Example {
    folder: tempfile::TempDir,
    spec: Spec,
    characters: u64,
}

impl Example {
    fn new(pytorch: &PyTorch, steps: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = programs::workspace().join("examples/nanogpt");
        for file in ["gpt.py", "train.py"] {
            fs::copy(source.join(file), folder.path().join(file)).unwrap();
        }
        let text: String = char_lm::text::licences().chars().take(200_000).collect();
        fs::write(folder.path().join("text.txt"), &text).unwrap();
        let variables =
            pytorch.environment().map(|(name, value)| format!("{name} = {:?}", value.to_string_lossy()));
        let command = [pytorch.python(), folder.path().join("train.py")];
        let spec = Spec {
            name: "nanogpt".into(),
            command: command.map(|path| path.display().to_string()).into(),
            settings: String::new(),
            more: format!("[workers]\nmax_failures = 20\nenvironment = {{ {} }}", variables.join(", ")),
            ..Spec::small(steps)
        };
        spec.write(folder.path());
        Self { folder, spec, characters: text.chars().count() as u64 }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn start(&self, workers: &str) -> Run {
        Run::start(&self.spec, self.path(), &["--workers", workers])
    }

    /// Starts `whimbrel run` of a script, by the command of the virtual environment.
    fn launch(&self, pytorch: &PyTorch, arguments: &[&str]) -> Run {
        // The wheel's command: it runs scripts by its own Python.
        let mut command = Command::new(pytorch.folder().join("bin/whimbrel"));
        command.args(["run", "--json"]).args(arguments).current_dir(self.path());
        command.env_remove("VIRTUAL_ENV").envs(pytorch.environment());
        Run::start_by(command)
    }

    /// Trains without a coordinator, and returns the BLAKE3 of the final state.
    fn alone(&self, pytorch: &PyTorch) -> String {
        let script = self.path().join("alone.py");
        let program = "import runpy, sys\nprint(runpy.run_path(sys.argv[1])['run'].digest())\n";
        fs::write(&script, program).unwrap();
        let printed = finished(self.python(pytorch, &script).arg(&self.spec.command[1]), ALONE).unwrap();
        // Warnings of PyTorch come first.
        printed.lines().last().unwrap().to_owned()
    }

    /// Trains in a plain loop. The final tensors are in the files of the folder that is returned.
    fn oracle(&self, pytorch: &PyTorch) -> PathBuf {
        let mut sampler = Sampler::new(self.characters - CONTEXT, SEED, GLOBAL_BATCH, SHARDS);
        let steps = 0..self.spec.steps;
        let samples: Vec<Vec<Vec<u64>>> =
            steps.map(|step| (0..SHARDS).map(|shard| sampler.shard(step, shard)).collect()).collect();
        fs::write(self.path().join("samples.json"), serde_json::to_vec(&samples).unwrap()).unwrap();
        let script = self.path().join("oracle.py");
        fs::copy(programs::workspace().join("e2e/tests/integration/pytorch/oracle.py"), &script).unwrap();
        let output = self.path().join("oracle");
        let mut command = self.python(pytorch, &script);
        finished(command.arg(SEED.to_string()).arg(&output).env("OMP_NUM_THREADS", "1"), ALONE).unwrap();
        output
    }

    /// Reads the last checkpoint from Python, and compares it with the oracle.
    fn load(&self, pytorch: &PyTorch, outcome: &Outcome, oracle: &Path) {
        let script = self.path().join("load.py");
        fs::copy(programs::workspace().join("e2e/tests/integration/pytorch/load.py"), &script).unwrap();
        let run = Path::new("runs").join(outcome.events[0]["run"].as_str().unwrap());
        let printed = finished(self.python(pytorch, &script).arg(run).arg(oracle), ALONE).unwrap();
        assert!(printed.contains("missing_keys=['head.weight'], unexpected_keys=[]"), "{printed}");
    }

    fn python(&self, pytorch: &PyTorch, script: &Path) -> Command {
        let mut command = pytorch.script(script);
        command.current_dir(self.path());
        command
    }

    /// Checks that a finished run's last checkpoint has the tensors of the oracle, byte by byte.
    fn assert_equal_to_oracle(&self, outcome: &Outcome, oracle: &Path) {
        let run = outcome.events[0]["run"].as_str().unwrap();
        let checkpoint = Checkpoint::open(self.path().join("runs").join(run).to_str().unwrap()).unwrap();
        assert_eq!(checkpoint.step(), self.spec.steps);
        let files: BTreeSet<String> = fs::read_dir(oracle)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        let own = checkpoint.tensors().iter().filter(|spec| spec.name != "whimbrel.values");
        assert_eq!(own.clone().map(|spec| spec.name.clone()).collect::<BTreeSet<_>>(), files);
        for spec in own {
            let mut bytes = vec![0; spec.checked_bytes().unwrap()];
            let tensor = TensorMut { spec: spec.clone(), memory: Memory::Host(&mut bytes) };
            checkpoint.load(vec![tensor]).unwrap();
            assert_eq!(bytes, fs::read(oracle.join(&spec.name)).unwrap(), "{}", spec.name);
        }
    }
}

#[test]
fn a_pytorch_program_ends_with_the_bits_of_a_plain_loop_whatever_dies() {
    let Some(pytorch) = pytorch() else { return };
    let example = Example::new(pytorch, STEPS);
    let expected = example.alone(pytorch);
    let oracle = example.oracle(pytorch);

    let one = example.start("1").finish();
    assert_eq!(one.state(), expected, "one worker");
    example.assert_equal_to_oracle(&one, &oracle);
    example.load(pytorch, &one, &oracle);

    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for workers in [2, 3] {
        let example = Example::new(pytorch, STEPS);
        let mut run = example.start(&workers.to_string());
        let mut kills = Vec::new();
        for _ in 0..2 {
            let full = run.until("a full membership", |event| {
                event["event"] == "generation" && event["workers"] == workers
            });
            let begins = full["step"].as_u64().unwrap_or(0);
            let step = begins + random.u64(2..12);
            run.until_step(step);
            let victim = random.u64(0..workers);
            let signal = if kills.is_empty() { Signal::INT } else { Signal::KILL };
            process::signal(run.worker(victim), signal);
            kills.push((step, victim));
        }
        let outcome = run.finish();
        let what = format!("{workers} workers, killed at (step, rank) {kills:?}, seed {seed}");
        eprintln!("{what}");
        assert_eq!(outcome.state(), expected, "{what}");
        let exits = outcome.events.iter().filter(|event| event["event"] == "exit");
        let reasons: Vec<&str> = exits.map(|event| event["reason"].as_str().unwrap()).collect();
        assert_eq!(reasons, ["SIGINT", "SIGKILL"], "{what}");
        assert!(outcome.steps().into_iter().eq(1..=STEPS), "{what}: {:?}", outcome.steps());
        example.assert_equal_to_oracle(&outcome, &oracle);
    }
}

#[test]
fn every_kind_of_weight_and_generator_ends_with_the_same_bits() {
    let Some(pytorch) = pytorch() else { return };
    let mut example = Example::new(pytorch, 40);
    let script = example.path().join("features.py");
    fs::copy(programs::workspace().join("e2e/tests/integration/pytorch/features.py"), &script).unwrap();
    example.spec.command[1] = script.display().to_string();
    // Neither has another run spec than the script's header.
    fs::remove_file(example.path().join("run.toml")).unwrap();
    let expected = example.alone(pytorch);
    let mut run = example.launch(pytorch, &["features.py", "--workers", "3"]);
    // While a worker is away, the others evaluate with fewer, or again.
    run.until("an evaluation", |event| event["event"] == "evaluation" && event["step"] == 12);
    run.kill_worker(1);
    let outcome = run.finish();
    assert_eq!(outcome.state(), expected);
    let evaluations = outcome.events.iter().filter(|event| event["event"] == "evaluation");
    let values: BTreeSet<(u64, String)> =
        evaluations.map(|event| (event["step"].as_u64().unwrap(), event["val_loss"].to_string())).collect();
    assert!(values.iter().map(|(step, _)| *step).eq([4, 8, 12, 16, 20, 24, 28, 30]), "{values:?}");
    assert_eq!(outcome.last()["val_loss"].to_string(), values.last().unwrap().1);
    assert_eq!(outcome.last()["step"], 30, "the program stops the run");
    assert_eq!(outcome.last()["reason"], "its program ended it after step 30 of 40");
    let files = fs::read_dir(example.path()).unwrap().filter_map(Result::ok);
    let after = files.filter(|file| file.file_name().to_string_lossy().starts_with("after-")).count();
    let generation = outcome.events.iter().rfind(|event| event["event"] == "generation").unwrap();
    let members = generation["workers"].as_u64().unwrap() as usize;
    // Alone, and in each member of the last generation: none is killed while it runs the code after the loop.
    assert_eq!(after, 1 + members);
}

#[test]
fn steps_whose_gradients_overflow_are_skipped_alike_by_all_workers() {
    let Some(pytorch) = pytorch() else { return };
    let mut example = Example::new(pytorch, 40);
    example.spec.more += "\n[reduction]\non_nonfinite = \"pass\"";
    let script = example.path().join("mixed.py");
    fs::copy(programs::workspace().join("e2e/tests/integration/pytorch/mixed.py"), &script).unwrap();
    example.spec.command[1] = script.display().to_string();
    example.spec.write(example.path());
    let expected = example.alone(pytorch);
    let mut run = example.start("3");
    run.until_step(5);
    run.kill_worker(1);
    let outcome = run.finish();
    assert_eq!(outcome.state(), expected);
}

#[test]
fn an_exception_before_the_first_step_fails_the_run_at_once_with_its_line() {
    let Some(pytorch) = pytorch() else { return };
    let example = Example::new(pytorch, STEPS);
    let program = fs::read_to_string(example.path().join("train.py")).unwrap();
    // What is printed does not wait in a buffer for the program's end, which a signal may bring.
    let raises = program.replace(
        "loss = loss_of(model(x), y)",
        "import sys; assert sys.stdout.write_through and sys.argv[1:] == ['--rate', 'high']\n        \
         raise ValueError('no such luck')",
    );
    let line = 1 + raises.lines().position(|line| line.contains("raise")).unwrap();
    fs::write(example.path().join("raises.py"), raises).unwrap();
    let flags = ["--steps", "9", "--batch", "32", "--seed", "7", "--workers", "1", "--", "--rate", "high"];
    let outcome = example.launch(pytorch, &[&["raises.py"], &flags[..]].concat()).finish();
    outcome.assert_failed();
    let expected = format!("ValueError: no such luck (raises.py, line {line}, in <module>)");
    let last = outcome.last();
    assert!(last["reason"].as_str().unwrap().contains(&format!("{expected} (exit code 1)")), "{last:#}");
    assert!(last["tail"].to_string().contains(&format!("raises.py\\\", line {line}")), "{last:#}");
    assert_eq!(outcome.count("worker"), 1, "no other worker is started for it");
}

/// Fails in another way each time that it is started. The last way is the one that no other try mends.
const FAILS: &str = "
import pathlib, torch
from whimbrel import RetryableError
from whimbrel.torch import join
tries = pathlib.Path('tries')
tries.write_text(tries.read_text() + '.' if tries.exists() else '.')
if len(tries.read_text()) == 1:
    raise OSError('the file server is away')
if len(tries.read_text()) == 2:
    # As libraries that print tracebacks in colour do.
    import sys
    sys.excepthook = lambda *error: None
    raise RetryableError('the quota is used up')
if len(tries.read_text()) == 3:
    raise ValueError('a model that cannot be built')
";

#[test]
fn an_exception_before_the_program_joins_is_tried_again_where_that_may_mend_it() {
    let Some(pytorch) = pytorch() else { return };
    let example = Example::new(pytorch, 9);
    fs::write(example.path().join("fails.py"), FAILS).unwrap();
    let flags =
        ["fails.py", "--steps", "9", "--batch", "8", "--workers", "1", "--set", "workers.max_failures=9"];
    let outcome = example.launch(pytorch, &flags).finish();
    outcome.assert_failed();
    let exits = outcome.events.iter().filter(|event| event["event"] == "exit");
    let reasons: Vec<String> = exits.map(|event| event["reason"].to_string()).collect();
    let expected = [
        "OSError: the file server is away (fails.py, line 8, in <module>)",
        "RetryableError: the quota is used up (fails.py, line 13, in <module>)",
        "ValueError: a model that cannot be built (fails.py, line 15, in <module>)",
    ];
    assert_eq!(reasons.len(), expected.len(), "{reasons:#?}");
    for (reason, expected) in reasons.iter().zip(expected) {
        assert!(reason.contains(expected) && reason.contains("exit code 1"), "{reason}");
    }
}

const NO_WEIGHT: &str = "
import torch
from whimbrel.torch import join
model = torch.nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in join([torch.ones(1)] * 40, model=model, optimizer=optimizer):
    for x in step:
        step.backward(model(x).mean(), weight=int(step.number < 3))
    optimizer.step()
";

#[test]
fn a_step_without_weight_fails_the_run_at_once() {
    let Some(pytorch) = pytorch() else { return };
    let example = Example::new(pytorch, 9);
    fs::write(example.path().join("no_weight.py"), NO_WEIGHT).unwrap();
    let flags = ["no_weight.py", "--steps", "9", "--batch", "8", "--workers", "2"];
    let outcome = example.launch(pytorch, &flags).finish();
    outcome.assert_failed();
    let reason = outcome.last()["reason"].as_str().unwrap();
    assert!(reason.contains("the weights of step 3 add up to 0"), "{reason}");
    let started = outcome.events.iter().filter(|event| event["event"] == "worker").count();
    assert_eq!(started, 2, "no worker is replaced");
}

#[test]
fn a_worker_with_other_data_is_refused_and_so_is_a_run_that_is_resumed_with_it() {
    let Some(pytorch) = pytorch() else { return };
    let example = Example::new(pytorch, STEPS);
    let mut run = example.start("2");
    run.until_checkpoint(10);
    // Another first sample, of the same length and with the same characters.
    let text = fs::read_to_string(example.path().join("text.txt")).unwrap();
    let (start, rest) = text.split_at(text.find(' ').unwrap() + 1);
    fs::write(example.path().join("text.txt"), format!("{}{rest}", start.chars().rev().collect::<String>()))
        .unwrap();
    run.kill_worker(1);
    let exits = |event: &serde_json::Value| event["event"] == "exit" && event["reason"] != "SIGKILL";
    let refused = run.until("the end of the worker with other data", exits);
    let reason = refused["reason"].as_str().unwrap();
    assert!(reason.contains("its data set differs from that of the other workers in sample 0 ("), "{reason}");
    run.kill_all();

    let outcome = Run::start(&example.spec, example.path(), &["--workers", "1", "--resume"]).finish();
    outcome.assert_failed();
    let reason = outcome.last()["reason"].as_str().unwrap();
    let expected = "the data set differs from that with which it was saved in sample 0 (";
    assert!(reason.contains(expected) && reason.contains("could not be read"), "{reason}");
}

#[test]
fn the_python_packages_own_tests_pass() {
    let Some(pytorch) = pytorch() else { return };
    let mut tests = Command::new(pytorch.python());
    tests.args(["-B", "-m", "unittest"]).current_dir(programs::workspace().join("python/tests"));
    let printed = finished(tests.envs(pytorch.environment()), ALONE).unwrap();
    assert!(printed.contains("\nOK"), "{printed}");
}

#[test]
fn the_wheels_command_works_without_pytorch_and_passes_its_exit_code_on() {
    let Some(pytorch) = pytorch() else { return };
    let without =
        "import sys; sys.modules['torch'] = None; import whimbrel.__main__ as command; command.main()";
    let run = |arguments: &[&str]| {
        Command::new(pytorch.python()).args(["-B", "-c", without]).args(arguments).output().unwrap()
    };
    let help = run(&["--help"]);
    let printed = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.status.success() && printed.contains("Usage: whimbrel"), "{printed}");
    let refused = run(&["run", "no-such-script.py"]);
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{errors}");
    assert!(errors.contains("cannot read the script no-such-script.py"), "{errors}");
}

#[test]
fn a_plain_script_becomes_a_worker_by_five_changed_lines() {
    let source = programs::workspace().join("examples/nanogpt");
    let lines = |file| -> Vec<String> {
        let text = fs::read_to_string(source.join(file)).unwrap();
        // The first line says what the script is.
        text.lines().skip(1).filter(|line| !line.is_empty()).map(str::to_owned).collect()
    };
    let mut plain = lines("plain.py");
    let changed: Vec<String> = lines("train.py")
        .into_iter()
        .filter(|line| match plain.iter().position(|other| other == line) {
            Some(found) => {
                plain.remove(found);
                false
            }
            None => true,
        })
        .collect();
    assert_eq!(changed.len(), 5, "{changed:#?}");
}
