"""Whether a resource is there, which clients ask by HEAD of its id: 204 or 404, without a body."""

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter, Depends, Response

from http_api.routes.autoscale import SETTING, existing_setting
from http_api.routes.common import BALANCER, SET, existing_scale_set, need_api_version
from http_api.routes.extensions import EXTENSION, get_extension
from http_api.routes.instances import INSTANCES, existing_instance
from http_api.routes.load_balancers import existing_balancer, get_part
from http_api.routes.networks import KEPT, PART, existing_resource
from http_api.routes.networks import get_part as get_part_of_kept

router = APIRouter(tags=["existence"], dependencies=[Depends(need_api_version)])


async def head() -> Response:
    """Say that the resource is there; what looks for it answers 404 where it is not."""
    return Response(status_code=204)


# What looks for the resource at a path, and raises ApiError 404.
_LOOKS: Mapping[str, Callable[..., Any]] = {
    SET: existing_scale_set,
    EXTENSION: get_extension,
    INSTANCES + "/{instance_id}": existing_instance,
    BALANCER: existing_balancer,
    BALANCER + "/{kind}/{part}": get_part,
    SETTING: existing_setting,
    KEPT: existing_resource,
    PART: get_part_of_kept,
}
for _path, _look in _LOOKS.items():
    router.add_api_route(_path, head, methods=["HEAD"], dependencies=[Depends(_look)])
