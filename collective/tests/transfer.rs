//! The state travels from who has it to who lacks it.

mod group;

use group::{LIMITS, members, together};
use whimbrel_collective::Error;

fn state(lengths: &[usize]) -> Vec<Vec<u8>> {
    let byte = |part: usize, index: usize| (part * 31 + index * 7 + index / 251) as u8;
    lengths
        .iter()
        .enumerate()
        .map(|(part, &length)| (0..length).map(|index| byte(part, index)).collect())
        .collect()
}

#[test]
fn several_receivers_from_several_sources_at_once() {
    // Empty parts at both ends and in the middle, and one of several frames.
    let lengths = [0, 5, 3 << 20 | 1, 0, 0, 1 << 20, 77, 0];
    let (mut endpoints, generation) = members(&[1; 6]);
    let received = together(&mut endpoints, &generation, LIMITS, |mut group| {
        let mut state = state(&lengths);
        let receive = |from: usize| (Some(from), Vec::new());
        let (from, to) = match group.rank() {
            0 => (None, vec![1, 2, 5]),
            3 => (None, vec![4]),
            4 => receive(3),
            _ => receive(0),
        };
        if let Some(from) = from {
            state.iter_mut().for_each(|part| part.fill(0));
            let mut parts: Vec<&mut [u8]> = state.iter_mut().map(Vec::as_mut_slice).collect();
            group.receive_state(from, &mut parts).unwrap();
        } else {
            let parts: Vec<&[u8]> = state.iter().map(Vec::as_slice).collect();
            group.send_state(&to, &parts).unwrap();
        }
        // A rank that is done goes on, while others still transfer.
        group.exchange(0, b"go").unwrap();
        state
    });
    assert!(received.iter().all(|received| *received == state(&lengths)));
}

#[test]
fn a_state_that_does_not_fit_is_refused_by_its_first_difference() {
    for (there, here, what) in [
        (vec![8, 9, 10], vec![8, 7, 10], "part 1 has 7 bytes"),
        (vec![8, 9], vec![8, 9, 10], "3 parts, 27 bytes"),
        (vec![0, 5], vec![5, 0], "part 0 has 5 bytes"),
    ] {
        let (mut endpoints, generation) = members(&[1, 1]);
        together(&mut endpoints, &generation, LIMITS, |mut group| {
            if group.rank() == 0 {
                let state = state(&there);
                let parts: Vec<&[u8]> = state.iter().map(Vec::as_slice).collect();
                // A sender is done when the last byte has left, whatever the receiver thinks of it.
                let sent = group.send_state(&[1], &parts);
                assert!(
                    matches!(sent, Ok(()) | Err(Error::Abandoned { .. } | Error::Lost { .. })),
                    "{sent:?}"
                );
                return;
            }
            let mut state = vec![vec![1; 100]; here.len()];
            let mut parts: Vec<&mut [u8]> =
                state.iter_mut().zip(&here).map(|(part, &length)| &mut part[..length]).collect();
            let error = group.receive_state(0, &mut parts).unwrap_err();
            assert!(matches!(&error, Error::Frame { expected, .. } if expected.contains(what)), "{error}");
            assert!(state.iter().flatten().all(|&byte| byte == 1), "bytes were written all the same");
        });
    }
}
