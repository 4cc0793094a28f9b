//! What a node says of itself, as `node/src/hosting/announce.rs` does it.

use fnmesh_mesh::{
    membership::{App, Load, Profile, Status},
    placement,
};

use super::{World, drain::Drain, pool::Pool};

impl World {
    /// Tells the mesh what is new.
    pub(super) fn announce(&mut self, node: usize) {
        let this = &self.nodes[node];
        let (Some(hosting), Some(_)) = (&this.hosting, &this.membership) else { return };
        let specs = &self.work.specs;
        let served = hosting.hosted().into_iter().filter_map(|app| {
            let load = load(hosting.pool(app)?);
            let (version, hash) = hosting.apps[&app].version;
            Some(App { name: specs[app].name.clone(), version, hash, functions: vec!["run".into()], load })
        });
        let apps: Vec<_> = this.profile.apps.first().cloned().into_iter().chain(served).collect();
        let starting: Vec<_> = (0..specs.len()).filter(|app| hosting.is_starting(*app)).collect();
        let starting: Vec<_> = starting.into_iter().map(|app| specs[app].name.clone()).collect();
        let unable = hosting.apps.iter().filter(|(_, hosted)| hosted.pool.is_none() && hosted.failed.is_some());
        let unable: Vec<_> = unable.map(|(app, _)| specs[*app].name.clone()).collect();
        let status = if hosting.drain == Drain::On { Status::Draining } else { Status::Serving };
        let profile = Profile { apps, starting, unable, status, ..this.profile.clone() };
        if this.profile != profile {
            self.describe(node, |own| *own = profile);
        }
    }
}

pub(super) fn load(pool: &Pool) -> Load {
    placement::load(pool.calls(), pool.capacity(), pool.is_saturated())
}
