//! Reading from the files.

use std::sync::Arc;

use super::{
    Disk,
    generation::{Failed, View},
};
use crate::{
    clock::Instant,
    codec::{Dictionary, DictionaryId},
    key::{Id, Scope},
    shape::Shape,
    store::{
        dating::Moment,
        load::{Found, Reading, Rows},
        names::{IdName, Name, Table},
        rows::Input,
        save::envelope_name,
    },
};

/// The files as one reading sees them.
struct Files<'a> {
    disk: &'a Disk,
    views: Vec<View>,
}

impl Rows for Files<'_> {
    type Lack = Failed;

    fn row(&mut self, table: Table, name: &Name) -> Result<Option<Vec<u8>>, Failed> {
        self.disk.row(&self.views, table, name)
    }

    fn links(&mut self, id: &Name) -> Result<Vec<(IdName, Moment)>, Failed> {
        let mut links = Vec::new();
        for view in &self.views {
            for (link, sealed) in view.alike(Table::Links, id)? {
                let plain = self.disk.unseal(Table::Links, &link, &sealed)?;
                let (Some(customer), Some(at)) = (link.last_chunk(), Input(&plain).number()) else {
                    return Err(Failed::Damaged);
                };
                links.push((*customer, Moment(at)));
            }
        }
        Ok(links)
    }

    fn dictionary(&mut self, id: DictionaryId) -> Result<Option<Arc<Dictionary>>, Failed> {
        Ok(self.disk.dictionary(&self.views, id))
    }
}

impl Disk {
    /// What may be believed of these keys.
    pub(in crate::store) fn load(
        &self,
        (scope, shape): (&Arc<Scope>, &Shape),
        ids: &[Id],
        now: Instant,
    ) -> Result<Vec<Found>, Failed> {
        let rows = Files { disk: self, views: self.views()? };
        let mut reading = Reading::new(rows, (scope, shape), (&self.seal, self.dating), (self.max_age, now));
        let mut found = Vec::new();
        for id in ids {
            found.extend(reading.find(id)?);
        }
        Ok(found)
    }

    /// The envelope of the last success of a lookup path.
    pub(in crate::store) fn envelope(&self, lookup: u8) -> Option<Vec<u8>> {
        self.row(&self.views().ok()?, Table::About, &envelope_name(lookup)).ok()?
    }
}
