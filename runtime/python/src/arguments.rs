//! A call's body bound to its function's parameters.

use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict, PyString},
};

use crate::{
    failure::Failure,
    ffi::{self, Owned},
    frame::BodyFormat,
    function::{Parameter, Shape},
    parse::{self, Reader, Refused, Scratch},
};

/// What a function is called with. Kept from call to call for its allocation.
#[derive(Default)]
pub(crate) struct Arguments<'py> {
    /// By position; while names are bound, one place for each named parameter.
    values: Vec<Option<Owned<'py>>>,
    names: Option<Bound<'py, PyDict>>,
}

/// Why a body cannot be bound.
enum Mismatch {
    Json(Refused),
    #[allow(clippy::box_collection, reason = "one pointer, so that results stay small")]
    Arity(Box<String>),
}

impl From<Refused> for Mismatch {
    fn from(refused: Refused) -> Self {
        Self::Json(refused)
    }
}

impl Mismatch {
    fn arity(what: String) -> Self {
        Self::Arity(Box::new(what))
    }

    #[cold]
    fn into_failure(self, function: &Shape, body: &[u8]) -> Failure {
        Failure::invalid(match self {
            Self::Json(refused) => format!("the arguments are {}", refused.describe(body)),
            Self::Arity(what) => format!("{}: {what}", function.signature),
        })
    }
}

impl<'py> Arguments<'py> {
    /// Reads `body` and binds it to the parameters of `function`.
    #[inline(always)]
    pub(crate) fn bind(
        &mut self,
        py: Python<'py>,
        function: &Shape,
        format: BodyFormat,
        body: &[u8],
        scratch: &mut Scratch<'py>,
    ) -> Result<(), Failure> {
        self.clear();
        let bound = match format {
            BodyFormat::Json if !body.is_empty() => self.json(py, function, body, scratch),
            _ => return self.bind_other(py, function, format, body),
        };
        bound.map_err(|mismatch| mismatch.into_failure(function, body))
    }

    #[inline(never)]
    fn bind_other(
        &mut self,
        py: Python<'py>,
        function: &Shape,
        format: BodyFormat,
        body: &[u8],
    ) -> Result<(), Failure> {
        let bound = match format {
            BodyFormat::Json | BodyFormat::None => self.complete_positions(function, 0),
            BodyFormat::Bytes => self.single(function, PyBytes::new(py, body).into_any()),
            BodyFormat::Text => match std::str::from_utf8(body) {
                Ok(text) => self.single(function, PyString::new(py, text).into_any()),
                Err(_) => return Err(Failure::invalid("the text is not valid UTF-8".into())),
            },
        };
        bound.map_err(|mismatch| mismatch.into_failure(function, body))
    }

    /// Binds the HTTP request alone.
    pub(crate) fn bind_request(
        &mut self,
        function: &Shape,
        parameter: usize,
        request: Bound<'py, PyAny>,
    ) -> Result<(), Failure> {
        self.clear();
        self.values.resize_with(function.parameters.len(), || None);
        self.values[parameter] = Some(request.clone().into());
        self.complete_names(request.py(), function).map_err(|_| {
            Failure::invalid(format!(
                "{}: takes more than the HTTP request, which is all it can get",
                function.signature
            ))
        })
    }

    /// Calls the function; the arguments are gone afterwards. On `None` an exception is set.
    #[inline(always)]
    pub(crate) fn call(&mut self, function: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
        let names = self.names.as_ref().map_or(std::ptr::null_mut(), Bound::as_ptr);
        // SAFETY: binding left no place empty, and `Option<Owned>` has the layout of a pointer to an object. The result is
        // a new reference, or null with an exception set.
        let result = unsafe {
            let values = self.values.as_ptr().cast();
            let result = ffi::call(function.as_ptr(), values, self.values.len(), names);
            Bound::from_owned_ptr_or_opt(function.py(), result)
        };
        self.clear();
        result
    }

    #[inline(always)]
    fn clear(&mut self) {
        self.values.clear();
        if self.names.is_some() {
            self.names = None;
        }
    }

    fn single(&mut self, function: &Shape, value: Bound<'py, PyAny>) -> Result<(), Mismatch> {
        self.values.push(Some(value.into()));
        self.complete_positions(function, 1)
    }

    #[inline(always)]
    fn json(
        &mut self,
        py: Python<'py>,
        function: &Shape,
        body: &[u8],
        scratch: &mut Scratch<'py>,
    ) -> Result<(), Mismatch> {
        let mut reader = Reader::new(py, body, scratch);
        match reader.peek() {
            Some(b'[') => self.array(function, reader),
            Some(b'{') => self.object(function, reader),
            _ => self.single(function, reader.document()?),
        }
    }

    /// Positions.
    #[inline(always)]
    fn array(&mut self, function: &Shape, mut reader: Reader<'_, 'py>) -> Result<(), Mismatch> {
        let most = if function.any_position { usize::MAX } else { function.positional };
        let more = reader.open(b']') && reader.ints(most, &mut self.values, |int| Some(int.into()));
        if more || reader.peek().is_some() {
            return self.array_rest(function, reader, more);
        }
        let given = self.values.len();
        if given == function.positional && function.parameters.len() == given {
            return Ok(());
        }
        self.complete_positions(function, given)
    }

    /// Positions after the integers that the array began with.
    #[inline(never)]
    fn array_rest(&mut self, function: &Shape, mut reader: Reader<'_, 'py>, mut more: bool) -> Result<(), Mismatch> {
        let mut given = self.values.len();
        while more {
            let value = reader.value(1)?;
            more = reader.step(b']')?;
            given += 1;
            if given <= function.positional || function.any_position {
                self.values.push(Some(value.into()));
            }
        }
        reader.finish()?;
        self.complete_positions(function, given)
    }

    /// Names. Of members with the same name the last one counts.
    #[inline(never)]
    fn object(&mut self, function: &Shape, mut reader: Reader<'_, 'py>) -> Result<(), Mismatch> {
        let py = reader.py();
        self.values.resize_with(function.parameters.len(), || None);
        let mut expected = 0;
        let mut more = reader.open(b'}');
        while more {
            let name = reader.key()?;
            if let Some(parameter) = function.find(name, expected) {
                reader.colon()?;
                self.values[parameter] = Some(reader.value(1)?.into());
                expected = parameter + 1;
            } else if function.any_name {
                let name = parse::string(py, name).ok_or(Refused::SYNTAX)?;
                reader.colon()?;
                let value = reader.value(1)?;
                set(self.names(py), name, &value)?;
            } else {
                self.clear();
                return self.object_values(function, reader.again());
            }
            more = reader.step(b'}')?;
        }
        reader.finish()?;
        self.complete_names(py, function)
    }

    /// An object whose members are not all parameters: its values by position, in its own order.
    fn object_values(&mut self, function: &Shape, reader: Reader<'_, 'py>) -> Result<(), Mismatch> {
        let document = reader.document()?;
        let object = document.cast::<PyDict>().map_err(|error| Mismatch::arity(error.to_string()))?;
        self.values.extend(object.values().iter().map(|value| Some(value.into())));
        self.complete_positions(function, object.len()).map_err(|_| {
            let mut names = object.keys().iter().map(|name| name.to_string()).collect::<Vec<_>>();
            names.retain(|name| function.find(name.as_bytes(), 0).is_none());
            Mismatch::arity(format!("unexpected argument{}", quoted(&names)))
        })
    }

    #[inline(never)]
    fn complete_positions(&mut self, function: &Shape, given: usize) -> Result<(), Mismatch> {
        let positional = function.positional;
        if given > positional && !function.any_position {
            let least =
                function.parameters[..positional].iter().filter(|parameter| parameter.default.is_none()).count();
            let at_most = if least < positional { "at most " } else { "" };
            let plural = if positional == 1 { "" } else { "s" };
            return Err(Mismatch::arity(format!("takes {at_most}{positional} argument{plural}, got {given}")));
        }
        match function.parameters.get(given.min(positional)..) {
            Some(rest) if rest.iter().any(|parameter| parameter.default.is_none()) => Err(missing(
                rest.iter().filter(|parameter| parameter.default.is_none()).map(|parameter| &*parameter.name),
            )),
            _ => Ok(()),
        }
    }

    /// Fills gaps between given positions with defaults, and moves what only goes by name.
    fn complete_names(&mut self, py: Python<'py>, function: &Shape) -> Result<(), Mismatch> {
        let (positional, by_name) = function.parameters.split_at(function.positional);
        let absent = |(value, parameter): (&Option<_>, &Parameter)| value.is_none() && parameter.default.is_none();
        if self.values.iter().zip(&function.parameters).any(absent) {
            let absent = self.values.iter().zip(&function.parameters).filter(|pair| absent(*pair));
            return Err(missing(absent.map(|(_, parameter)| &*parameter.name)));
        }
        for (index, parameter) in by_name.iter().enumerate() {
            if let Some(value) = self.values[positional.len() + index].take() {
                set(self.names(py), parameter.key.bind(py).clone(), &value)?;
            }
        }
        let given = self.values.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        self.values.truncate(given);
        for (value, parameter) in self.values.iter_mut().zip(positional) {
            if let (None, Some((default,))) = (&value, &parameter.default) {
                *value = Some(default.bind(py).clone().into());
            }
        }
        Ok(())
    }

    fn names(&mut self, py: Python<'py>) -> &Bound<'py, PyDict> {
        self.names.get_or_insert_with(|| PyDict::new(py))
    }
}

fn set<'py>(names: &Bound<'py, PyDict>, name: Bound<'py, PyString>, value: &Bound<'py, PyAny>) -> Result<(), Mismatch> {
    names.set_item(name, value).map_err(|error| Mismatch::arity(error.to_string()))
}

fn missing<'a>(names: impl Iterator<Item = &'a str>) -> Mismatch {
    Mismatch::arity(format!("missing argument{}", quoted(&names.map(str::to_owned).collect::<Vec<_>>())))
}

/// ` 'a'`, or `s 'a', 'b'`.
fn quoted(names: &[String]) -> String {
    let plural = if names.len() > 1 { "s" } else { "" };
    let names = names.iter().map(|name| format!(" '{name}'")).collect::<Vec<_>>();
    format!("{plural}{}", names.join(","))
}
