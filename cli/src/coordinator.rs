//! `whimbrel coordinator`.

use std::net::{Ipv4Addr, SocketAddr};

use whimbrel_client::PORT;
use whimbrel_coordinator::{Coordinator, Settings, StartError, Timing, Token};
use whimbrel_store::Store;

use crate::{
    args::coordinator::{CoordinatorArgs, ServerSettings},
    exit::{Code, Failure},
    print::Printer,
    signals::Signals,
    token,
};

/// Serves a store until a signal.
pub(crate) async fn serve(args: CoordinatorArgs, config: ServerSettings) -> Result<Code, Failure> {
    let ServerSettings { store, listen, token_file, insecure } = args.settings.over(config);
    let missing = || {
        Failure::bad_input("no store is named")
            .hint("give --store file:///data/runs, or set WHIMBREL_STORE, or store under [coordinator] of whimbrel.toml")
    };
    let listen = listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
    let store = Store::open(&store.ok_or_else(missing)?)?;
    store.probe().await?;

    let token = match needed(listen, token_file.is_some(), insecure.unwrap_or(false)) {
        Need::Token => Some(load(token_file)?),
        Need::None => None,
        Need::Nothing => {
            tracing::warn!(%listen, "no token is asked for: whoever reaches this port may run any program on every node");
            None
        }
    };
    let mut signals = Signals::new().map_err(Failure::unexpected)?;
    let store_uri = store.uri().to_owned();
    let settings = Settings { store, listen, token, adopt: true, timing: Timing::default() };
    let mut coordinator = Coordinator::start(settings).await.map_err(|error| match error {
        StartError::Listen { .. } => Failure::bad_input(error),
        error => Failure::unexpected(error),
    })?;
    tracing::info!(address = %coordinator.address(), store = store_uri, "serving; Ctrl-C stops");
    tokio::select! {
        error = coordinator.failed() => return Err(Failure::unexpected(error)),
        () = signals.next() => {}
    }
    tracing::info!("runs are saving a checkpoint; press Ctrl-C again to stop at once");
    tokio::select! {
        () = coordinator.stop() => {}
        () = signals.next() => tracing::warn!("stopped at once; runs go on from their last checkpoints"),
    }
    Ok(Code::Done)
}

/// What callers must show.
#[derive(Debug, PartialEq, Eq)]
enum Need {
    Token,
    /// Only this machine can call.
    None,
    /// Anybody can, and the user said so.
    Nothing,
}

fn needed(listen: SocketAddr, file_given: bool, insecure: bool) -> Need {
    match (listen.ip().is_loopback(), insecure) {
        (true, _) if file_given => Need::Token,
        (true, _) => Need::None,
        (false, true) => Need::Nothing,
        (false, false) => Need::Token,
    }
}

/// The token in the file; a new one is shown, this once.
fn load(file: Option<std::path::PathBuf>) -> Result<Token, Failure> {
    let nowhere = || {
        Failure::bad_input("there is no place for the token").hint("give --token-file PATH, or --insecure")
    };
    let path = file.or_else(token::usual_file).ok_or_else(nowhere)?;
    let (token, new) = Token::load_or_create(&path).map_err(Failure::bad_input)?;
    if new {
        let mut out = Printer::stdout();
        out.line(format!("token: {}", token.reveal()));
        out.line(format!("  It is in {} and will not be shown again.", path.display()));
        out.line(
            "  Agents and clients take it from WHIMBREL_TOKEN, or from the file given with --token-file.",
        );
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_loopback_a_token_is_asked_for_unless_the_user_says_no_in_so_many_words() {
        let (here, anywhere) = ("127.0.0.1:0".parse().unwrap(), "0.0.0.0:0".parse().unwrap());
        assert_eq!(needed(here, false, false), Need::None);
        assert_eq!(needed(here, true, false), Need::Token);
        assert_eq!(needed(anywhere, false, false), Need::Token);
        assert_eq!(needed("[2001:db8::1]:1".parse().unwrap(), false, false), Need::Token);
        assert_eq!(needed(anywhere, false, true), Need::Nothing);
    }
}
