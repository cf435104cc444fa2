//! The table of routes.

use actix_web::web::{self, ServiceConfig};

use super::{documents, sessions, sharing, tenant, text_ops};
use crate::gateway::api_error::ApiError;

/// Adds one route per line: method, path, handler.
macro_rules! routes {
    ($config:ident: $($method:ident $path:literal => $handler:path,)+) => {
        $($config.route($path, web::$method().to($handler));)+
    };
}

/// Adds the routes of the API.
pub(in crate::gateway) fn configure(config: &mut ServiceConfig) {
    routes! { config:
        get "/api/me" => sessions::me,
        post "/api/register" => sessions::register,
        post "/api/sign-in" => sessions::sign_in,
        post "/api/session" => sessions::begin,
        post "/api/refresh" => sessions::refresh,
        post "/api/sign-out" => sessions::sign_out,
        post "/api/sign-out-everywhere" => sessions::sign_out_everywhere,
        post "/api/password" => sessions::change_password,
        post "/api/password-reset" => sessions::reset_password,
        post "/api/invitations" => tenant::invite,
        get "/api/invitations" => tenant::invitations,
        delete "/api/invitations/{id}" => tenant::delete_invitation,
        get "/api/audit" => tenant::audit,
        get "/api/people" => tenant::accounts,
        put "/api/people/role" => tenant::set_role,
        put "/api/people/disabled" => tenant::set_disabled,
        post "/api/people/reset" => tenant::allow_reset,
        post "/api/people/sign-out" => tenant::end_sessions,
        get "/api/documents" => documents::list,
        get "/api/documents/{collection}/{id}" => documents::describe,
        patch "/api/documents/{collection}/{id}" => documents::rename,
        get "/api/documents/{collection}/{id}/people" => sharing::people,
        put "/api/documents/{collection}/{id}/people" => sharing::set_role,
        put "/api/documents/{collection}/{id}/owner" => sharing::transfer,
        post "/api/documents/{collection}/{id}/links" => sharing::create_link,
        delete "/api/documents/{collection}/{id}/links/{link}" => sharing::delete_link,
        get "/api/documents/{collection}/{id}/audit" => sharing::audit,
        post "/api/documents/{collection}/{id}/text-ops" => text_ops::edit_text,
        post "/api/links" => sharing::open_link,
    }
    config.route("/api/{rest:.*}", web::route().to(not_found));
}

async fn not_found() -> Result<&'static str, ApiError> {
    Err(ApiError::ResourceNotFound)
}
