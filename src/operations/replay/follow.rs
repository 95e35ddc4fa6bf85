//! What becomes of letters that were sent, by what the log says of them.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::domain::dead_letter::Subject;
use crate::domain::fold::Outcome;
use crate::domain::id::LetterId;
use crate::operations::Operations;
use crate::operations::progress::Progress;

/// Between two looks at the log: at first, after something has ended, and at most. Each costs a record in it.
const LOOK_FIRST: Duration = Duration::from_millis(200);
const LOOK_LAST: Duration = Duration::from_secs(5);

/// A letter that was sent.
#[derive(Debug, Clone)]
pub(super) struct Followed {
    pub(super) id: LetterId,
    pub(super) generation: u32,
    /// What ends when it has ended.
    pub(super) subject: Subject,
    /// Where the progress names it.
    pub(super) place: Option<usize>,
}

impl Operations {
    /// Notes what becomes of each of these letters, until all have ended or this is stopped.
    pub(super) async fn follow(
        &self,
        mut out: Vec<Followed>,
        progress: &watch::Sender<Progress>,
        stop: &CancellationToken,
    ) {
        let mut pause = LOOK_FIRST;
        while !out.is_empty() && !stop.is_cancelled() {
            match self.ended(&mut out).await {
                Ok(ended) => {
                    pause = if ended.is_empty() { pause.mul_f64(1.5).min(LOOK_LAST) } else { LOOK_FIRST };
                    progress.send_modify(|progress| {
                        for (Followed { id, generation, place, .. }, outcome) in ended {
                            progress.ended(&id, generation, place, outcome);
                        }
                    });
                }
                Err(error) => {
                    pause = LOOK_LAST;
                    tracing::warn!(error, "what becomes of the letters that were sent is not known now");
                }
            }
            if !out.is_empty() {
                tokio::select! { () = sleep(pause) => {} () = stop.cancelled() => {} }
            }
        }
    }

    /// Takes out what has ended by now.
    async fn ended(&self, out: &mut Vec<Followed>) -> Result<Vec<(Followed, Outcome)>, String> {
        let fold = self.letters.within(LOOK_FIRST).await.map_err(|error| error.to_string())?;
        let mut ended = Vec::new();
        out.retain(|followed| match fold.outcome(&followed.subject, followed.generation) {
            Outcome::Out => true,
            outcome => {
                ended.push((followed.clone(), outcome));
                false
            }
        });
        Ok(ended)
    }
}
