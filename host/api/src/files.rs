//! What a body holds that is no JSON, as schemas of the OpenAPI document.
//!
//! Nothing is made of these types. Without their schemas, clients are made that read a file as a list of numbers,
//! and that cannot send a form.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

/// A file: bytes that are no text.
pub(crate) struct Binary;

impl PartialSchema for Binary {
    fn schema() -> RefOr<Schema> {
        RefOr::T(Schema::Object(binary().build()))
    }
}

impl ToSchema for Binary {}

/// A form of components: one part for each, under the name of its plugin.
pub(crate) struct ComponentForm;

impl PartialSchema for ComponentForm {
    fn schema() -> RefOr<Schema> {
        let form =
            ObjectBuilder::new().schema_type(Type::Object).additional_properties(Some(binary()));
        RefOr::T(Schema::Object(form.build()))
    }
}

impl ToSchema for ComponentForm {}

fn binary() -> ObjectBuilder {
    let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
    ObjectBuilder::new().schema_type(Type::String).format(Some(format))
}
