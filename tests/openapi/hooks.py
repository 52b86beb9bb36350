"""What schemathesis sends is changed where JSON Schema and the gateway disagree about JSON."""

import schemathesis


@schemathesis.hook
def map_body(_context, body):
    """To JSON Schema 747.0 is an integer; to the gateway it is not, for an id that was a float may have lost its end."""
    ids = body.get("audienceUserIdList") if isinstance(body, dict) else None
    if not isinstance(ids, list):
        return body
    whole = [int(item) if isinstance(item, float) and item.is_integer() else item for item in ids]
    return {**body, "audienceUserIdList": whole}
