//! `whimbrel checkpoint diff`.

use indicatif::{HumanBytes, MultiProgress};
use serde::Serialize;
use whimbrel_state::TensorSpec;
use whimbrel_store::{
    Limits, Sources,
    diff::{DiffPlan, Difference, ValueDifference},
};

use super::{
    counted,
    interrupt::unless_interrupted,
    locate::find,
    meter::{Audience, Meter},
};
use crate::{
    args::checkpoint::DiffArgs,
    config::ClientConfig,
    exit::{Code, Failure},
    print::Printer,
};

/// How two checkpoints differ, as JSON.
#[derive(Serialize)]
struct Told<'a> {
    a: String,
    b: String,
    same: bool,
    equal: usize,
    only_in_a: &'a [TensorSpec],
    only_in_b: &'a [TensorSpec],
    reshaped: Vec<Reshaped<'a>>,
    changed: Vec<Changed<'a>>,
    /// Bytes of each state that were compared, and that hashes say are the same.
    compared: u64,
    vouched: u64,
}

#[derive(Serialize)]
struct Reshaped<'a> {
    a: &'a TensorSpec,
    b: &'a TensorSpec,
}

#[derive(Serialize)]
struct Changed<'a> {
    tensor: &'a TensorSpec,
    elements: u64,
    of: usize,
    largest: f64,
    not_finite: u64,
}

/// `whimbrel checkpoint diff`.
pub(super) async fn diff(
    args: DiffArgs,
    config: &ClientConfig,
    bars: &MultiProgress,
) -> Result<Code, Failure> {
    let a = find(&args.a, &args.options, config).await?;
    let b = find(&args.b, &args.options, config).await?;
    let plan = DiffPlan::new(&a.manifest, &b.manifest);
    let mut meter = Meter::new("comparing", plan.bytes(), Audience::of(args.options.json), bars);
    let (in_a, in_b) = (Sources::new(a.run.clone()), Sources::new(b.run.clone()));
    let (from_a, from_b) = ((&in_a, &a.manifest), (&in_b, &b.manifest));
    let mut progress = |bytes| meter.advance(bytes);
    let limits = Limits::default();
    let work = plan.execute(from_a, from_b, &limits, &mut progress);
    let found = unless_interrupted(work, "nothing was found yet").await;
    meter.finish();
    let found = found?;

    let mut out = Printer::stdout();
    if args.options.json {
        out.json(&told(a.uri(), b.uri(), &found));
    } else {
        out.line(format!("a  {}", a.uri()));
        out.line(format!("b  {}", b.uri()));
        if !found.is_none() {
            out.table(["TENSOR", "DIFFERENCE"], &rows(&found));
        }
        out.line(summary(&found));
    }
    Ok(if found.is_none() { Code::Done } else { Code::Failed })
}

fn told(a: String, b: String, found: &Difference) -> Told<'_> {
    let changed =
        |(tensor, apart): &'_ (TensorSpec, ValueDifference)| (tensor.checked_elements().unwrap_or(0), *apart);
    Told {
        a,
        b,
        same: found.is_none(),
        equal: found.equal,
        only_in_a: &found.only_in_a,
        only_in_b: &found.only_in_b,
        reshaped: found.reshaped.iter().map(|(a, b)| Reshaped { a, b }).collect(),
        changed: found
            .changed
            .iter()
            .map(|pair| {
                let (of, ValueDifference { elements, largest, not_finite }) = changed(pair);
                Changed { tensor: &pair.0, elements, of, largest, not_finite }
            })
            .collect(),
        compared: found.compared,
        vouched: found.equal_by_hash,
    }
}

/// A row for each tensor that is not the same, by name.
fn rows(found: &Difference) -> Vec<[String; 2]> {
    let what = |tensor: &TensorSpec| format!("{:?}{:?}", tensor.dtype, tensor.shape);
    let mut rows: Vec<[String; 2]> = Vec::new();
    let mut row = |tensor: &TensorSpec, words: String| rows.push([tensor.name.clone(), words]);
    for tensor in &found.only_in_a {
        row(tensor, format!("only in a: {}", what(tensor)));
    }
    for tensor in &found.only_in_b {
        row(tensor, format!("only in b: {}", what(tensor)));
    }
    for (a, b) in &found.reshaped {
        row(a, format!("{} in a, {} in b", what(a), what(b)));
    }
    for (tensor, apart) in &found.changed {
        let of = tensor.checked_elements().unwrap_or(0);
        let largest = format!("{} of {of} elements differ, by {:.3e} at most", apart.elements, apart.largest);
        let lost = match apart.not_finite {
            0 => String::new(),
            count => format!("; {count} infinite or not a number"),
        };
        row(tensor, format!("{largest}{lost}"));
    }
    rows.sort();
    rows
}

fn summary(found: &Difference) -> String {
    let unequal = found.only_in_a.len() + found.only_in_b.len() + found.reshaped.len() + found.changed.len();
    let hashes = match found.equal_by_hash {
        0 => String::new(),
        vouched => format!(", {} the same by their hashes alone", HumanBytes(vouched)),
    };
    let compared = format!("{} compared{hashes}", HumanBytes(found.compared));
    match unequal {
        0 => format!("the same: {}, bit for bit; {compared}", counted(found.equal, "tensor")),
        1 => format!("1 tensor differs, {} are the same; {compared}", found.equal),
        _ => format!("{unequal} tensors differ, {} are the same; {compared}", found.equal),
    }
}
