//! The differences between two checkpoints.

use serde_json::{Value, json};
use whimbrel_state::TensorSpec;
use whimbrel_store::diff::Difference;

use crate::output::{
    print::Printer,
    words::{bytes, counted},
};

/// Prints what differs between the checkpoints with the URIs `a` and `b`.
pub(crate) fn difference(a: &str, b: &str, found: &Difference, json: bool) {
    let mut out = Printer::stdout();
    if json {
        out.json(&value(a, b, found));
        return;
    }
    out.line(format!("a  {a}"));
    out.line(format!("b  {b}"));
    if !found.is_none() {
        out.table(["TENSOR", "DIFFERENCE"], &rows(found));
    }
    out.line(summary(found));
}

fn value(a: &str, b: &str, found: &Difference) -> Value {
    let reshaped: Vec<_> = found.reshaped.iter().map(|(a, b)| json!({"a": a, "b": b})).collect();
    let changed = found.changed.iter().map(|(tensor, apart)| {
        json!({
            "tensor": tensor,
            "elements": apart.elements,
            "of": elements(tensor),
            "largest": apart.largest,
            "not_finite": apart.not_finite,
        })
    });
    let changed: Vec<_> = changed.collect();
    json!({
        "a": a,
        "b": b,
        "same": found.is_none(),
        "equal": found.equal,
        "only_in_a": found.only_in_a,
        "only_in_b": found.only_in_b,
        "reshaped": reshaped,
        "changed": changed,
        // Bytes of each state: read and compared; and the same by their hashes.
        "compared": found.compared,
        "equal_by_hash": found.equal_by_hash,
    })
}

/// A row for each tensor that is not the same, by name.
fn rows(found: &Difference) -> Vec<[String; 2]> {
    let kind = |tensor: &TensorSpec| format!("{:?}{:?}", tensor.dtype, tensor.shape);
    let mut rows: Vec<[String; 2]> = Vec::new();
    let mut row = |tensor: &TensorSpec, text: String| rows.push([tensor.name.clone(), text]);
    for tensor in &found.only_in_a {
        row(tensor, format!("only in a: {}", kind(tensor)));
    }
    for tensor in &found.only_in_b {
        row(tensor, format!("only in b: {}", kind(tensor)));
    }
    for (a, b) in &found.reshaped {
        row(a, format!("{} in a, {} in b", kind(a), kind(b)));
    }
    for (tensor, apart) in &found.changed {
        let of = elements(tensor);
        let largest = format!("{} of {of} elements differ, by {:.3e} at most", apart.elements, apart.largest);
        let not_finite = match apart.not_finite {
            0 => String::new(),
            count => format!("; {count} infinite or not a number"),
        };
        row(tensor, format!("{largest}{not_finite}"));
    }
    rows.sort();
    rows
}

fn elements(tensor: &TensorSpec) -> usize {
    tensor.checked_elements().unwrap_or(0)
}

fn summary(found: &Difference) -> String {
    let unequal = found.only_in_a.len() + found.only_in_b.len() + found.reshaped.len() + found.changed.len();
    let hashes = match found.equal_by_hash {
        0 => String::new(),
        equal => format!(", {} not read, since their hashes are equal", bytes(equal)),
    };
    let compared = format!("{} compared{hashes}", bytes(found.compared));
    match unequal {
        0 => format!("the same: {}, bit for bit; {compared}", counted(found.equal, "tensor")),
        1 => format!("1 tensor differs, {} are the same; {compared}", found.equal),
        _ => format!("{unequal} tensors differ, {} are the same; {compared}", found.equal),
    }
}
