"""What http-api is told from outside, beside what every service is told."""

from pydantic import Field, SecretStr
from rollcall_kit import settings


class Settings(settings.Settings):
    """The API's own settings; all of them `ROLLCALL_…` in the environment."""

    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8080, ge=0, le=65535)
    api_token: SecretStr = SecretStr("")  # what clients send as `Authorization: Bearer …`
    api_tls_certificate: str = ""  # path of a PEM file with the chain; with it only https is served
    api_tls_key: str = ""  # path of its private key; none: it is in the same file
    api_tls_look: float = Field(default=10, gt=0)  # seconds between looks whether they changed
    api_key_days: float = Field(default=30, gt=0, le=3650)  # for which a key signs tokens
    openid_issuer: str = ""  # of an external OpenID provider: https://…, as its tokens say it
    openid_audience: str = ""  # what its tokens for this installation are made out to
    openid_claim: str = "roles"  # which names the bearer's groups or roles; dots lead into objects
    # {"fleet-admins": [{"role": "owner", "scope": "/"}]}
    openid_roles: dict[str, list[dict[str, str]]] = Field(default_factory=dict)
    openid_ca: str = ""  # path of a PEM file with the authority of its certificate
    api_metrics_open: bool = False  # serve /metrics to scrapers that have no token
    api_page_size: int = Field(default=200, ge=1, le=1000)  # items of a list before a nextLink
    api_max_body: int = Field(default=4 * 1024 * 1024, ge=1024)  # bytes of a request
    api_receive: float = Field(default=30, gt=0)  # seconds for a request's head; again for its body
    api_max_connections: int = Field(default=512, ge=8)
    api_max_requests: int = Field(default=200, ge=1)  # of one bearer at once; as many event streams
    api_keepalive: float = Field(default=15, gt=0)  # seconds between an idle stream's comments
    require_health_source: bool = False  # refuse what M34 only warns of
