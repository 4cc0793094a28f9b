//! What this node says of itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fnmesh_invoke::{AppState, AppStatus, Function};
use fnmesh_mesh::membership::{App, Load, Profile, Status, directory_hash};
use fnmesh_runtime::Demand;

use super::{Busy, Hosting, drain::Drain, load};

impl Hosting {
    /// Reads from the runtime what is served.
    pub(super) fn read_apps(&self) {
        let apps = self.host.runtime.apps();
        *self.serves.borrow_mut() = apps.iter().filter_map(|app| self.announced_app(app)).collect();
    }

    /// Tells the mesh what is new.
    pub(super) fn announce(&self, demand: &BTreeMap<String, Demand>) {
        let apps = self.apps.borrow();
        let is_stopping = |app: &App| apps.get(&app.name).is_some_and(|hosted| hosted.busy == Some(Busy::Stopping));
        let serves = self.serves.borrow();
        let served = serves.iter().filter(|app| !is_stopping(app)).map(|app| {
            let load = demand.get(&*app.name).map_or(Load::default(), |demand| load(*demand));
            App { load, ..app.clone() }
        });
        let starting = apps.iter().filter(|(_, hosted)| hosted.busy == Some(Busy::Starting));
        let unable = apps.iter().filter(|(_, hosted)| hosted.serving.is_none() && hosted.failed.is_some());
        let profile = Profile {
            http: Some(self.http),
            status: if self.drain.get() == Drain::On { Status::Draining } else { Status::Serving },
            apps: served.collect(),
            starting: starting.map(|(app, _)| Arc::clone(app)).collect(),
            unable: unable.map(|(app, _)| Arc::clone(app)).collect(),
            ..Profile::default()
        };
        let mut announced = self.announced.borrow_mut();
        if *announced != profile {
            self.mesh.announce(profile.clone());
            *announced = profile;
        }
    }

    /// What is said of an app: its public functions, and nothing while it serves no calls.
    fn announced_app(&self, app: &AppStatus) -> Option<App> {
        let serves = matches!(app.state, AppState::Ready | AppState::Stale { .. });
        let version = match self.apps.borrow().get(&*app.name) {
            _ if self.is_served_from_a_directory(&app.name) => 0,
            Some(hosted) => {
                let known = [hosted.serving, hosted.before].into_iter().flatten();
                known.into_iter().find(|(_, hash)| *hash == app.hash)?.0
            }
            None => return None,
        };
        let public = app.functions.iter().filter(|function| function.public);
        let functions: BTreeSet<Arc<str>> = public.flat_map(|function| names(function)).collect();
        serves.then(|| App {
            name: app.name.as_str().into(),
            version,
            hash: if version == 0 { directory_hash(app.hash) } else { app.hash },
            functions: functions.into_iter().collect(),
            load: Load::default(),
        })
    }
}

/// The names a function is called by.
fn names(function: &Function) -> [Arc<str>; 3] {
    let name = &function.id.name;
    let short = name.rsplit('.').next().unwrap_or(name);
    [Arc::clone(name), format!("{}.{short}", function.module).into(), format!("{}.{short}", function.file).into()]
}
