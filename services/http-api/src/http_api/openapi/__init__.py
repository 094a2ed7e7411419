"""The OpenAPI document, made from the routes as they are."""

from http_api.openapi.document import openapi_document, openapi_text, routes_of, undescribed

__all__ = ["openapi_document", "openapi_text", "routes_of", "undescribed"]
