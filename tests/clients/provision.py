"""Provisions an organisation as a CI job would, with nothing but the public contract and `requests`.

    TRUNKLINE_API_KEY=ak_… python provision.py --url http://127.0.0.1:8080

Every step looks first and writes only what is missing or different, so a second run changes nothing. At the
end the organisation is printed as JSON, without what differs from run to run: two runs print the same.

The program knows nothing of Trunkline beyond the contract: no extension field, no header of our own.
"""

import argparse
import base64
import json
import os
import sys
import urllib.parse

import requests

TRUNK = {
    "name": "CI carrier",
    "inbound_config": {
        "allowed_addresses": ["127.0.0.1"],
        "media_encryption": "SIP_MEDIA_ENCRYPT_ALLOW",
    },
    "outbound_config": {
        "address": "sip.carrier.example.com",
        "auth_username": "ci",
        "auth_password": "not-a-secret-of-anybodys",
        "transport": "SIP_TRANSPORT_TLS",
    },
}
NUMBERS = ["+15550140100", "+15550140101"]
AGENT = {"name": "CI agent", "description": "Made by a pipeline", "metadata": {"team": "ci", "tier": 1}}
CONFIG = {
    "instructions": "You answer the telephone.",
    "starting_message": {"type": "bot_initiates_static", "text": "Hello."},
    "runtime": {"type": "builtin", "builtin": "echo"},
    "a_field_of_another_server": {"kept": ["verbatim", 1, None, {"deep": True}]},
}
ROUTING = {
    "steps": [
        {"id": "trigger", "type": "input"},
        {"id": "answer", "type": "output", "fields": {"initial_context": "Called {{ input.called_number }}"}},
    ],
    "edges": [{"from": "trigger", "to": "answer"}],
}


class Api:
    """The API with one key; every answer must be what the contract says."""

    def __init__(self, url, key):
        self.url = url.rstrip("/")
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {key}"

    def ask(self, method, path, wanted=range(200, 300), **rest):
        reply = self.session.request(method, self.url + path, timeout=30, allow_redirects=False, **rest)
        if reply.status_code not in wanted:
            sys.exit(f"{method} {path}: {reply.status_code}: {reply.text}")
        if reply.status_code >= 400:
            assert set(reply.json()) == {"detail"}, reply.text
        return reply.json() if reply.content else None

    def every(self, path, **query):
        """A whole list, page by page, with the cursor made as the contract says."""
        items, page = [], None
        while page is None or len(page) == 2:
            page = self.ask("GET", path, params={"limit": 2, **query})
            assert isinstance(page, list), page
            items += page
            if page:
                created = page[-1]["created_at"].encode()
                query["cursor"] = base64.b64encode(created).decode()
        moments = [item["created_at"] for item in items]
        assert moments == sorted(moments, reverse=True), moments
        return items


def same(wanted, there):
    """Whether everything that is wanted is there; the other side may know more fields."""
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(
            same(value, there.get(name)) for name, value in wanted.items() if name != "auth_password"
        )
    return wanted == there


def named(items, name):
    """The `name` filter finds parts of names: only an exact match counts."""
    return next((item for item in items if item["name"] == name), None)


def trunk(api):
    there = named(api.every("/core/trunks", name=TRUNK["name"]), TRUNK["name"])
    if there is None:
        there = api.ask("POST", "/core/trunks", json=TRUNK)
    elif not same(TRUNK, there):
        there = api.ask("PUT", f"/core/trunks/{there['id']}", json=TRUNK)
    assert "not-a-secret-of-anybodys" not in json.dumps(there), "a password came back"
    assert api.ask("GET", f"/core/trunks/{there['id']}") == there or same(TRUNK, there)
    return there["id"]


def numbers(api, trunk_id):
    known = {item["phone_number"] for item in api.every("/core/phone-numbers", trunk_id=trunk_id)}
    for number in NUMBERS:
        if number not in known:
            api.ask("POST", "/core/phone-numbers", json={"phone_number": number, "trunk_id": trunk_id})
        again = {"phone_number": number, "trunk_id": trunk_id}
        api.ask("POST", "/core/phone-numbers", wanted=[409], json=again)
        for spelled in (number, urllib.parse.quote(number, safe="")):
            assert api.ask("GET", f"/core/phone-numbers/{spelled}")["phone_number"] == number


def agent(api):
    there = named(api.every("/core/agents", name=AGENT["name"]), AGENT["name"])
    if there is None:
        there = api.ask("POST", "/core/agents", json=AGENT)
        assert there["agent_id"] == there["id"], "a client looks for it under either name"
    elif not same(AGENT, there):
        there = api.ask("PUT", f"/core/agents/{there['id']}", json=AGENT)
    by_metadata = api.every("/core/agents", metadata=json.dumps({"team": "ci"}))
    assert there["id"] in [item["id"] for item in by_metadata]
    return there["id"]


def version(api, agent_id):
    schema = api.ask("GET", "/core/agent-config-schema")
    assert schema["type"] == "object", "a JSON Schema"
    path = f"/core/agents/{agent_id}/versions"
    published = api.every(path, published="true")
    if published and published[0]["config"] == CONFIG:
        return published[0]
    made = api.ask("POST", path, json={"config": CONFIG})
    assert made["published"] is False and made["config"] == CONFIG, made
    return made


def publish(api, agent_id, made):
    path = f"/core/agents/{agent_id}/versions/{made['version']}"
    body = {"phone_numbers": NUMBERS[:1], "direction": "both"}
    changed = api.ask("POST", f"{path}/publish", json=body)
    assert [item["phone_number"] for item in changed] == NUMBERS[:1], changed
    body = {"phone_numbers": NUMBERS[1:], "unassign_phone_numbers": [], "direction": "inbound"}
    api.ask("POST", f"{path}/publish", json=body)
    # The recipe ends with an unconditional publish, which may be repeated and has no body.
    api.ask("POST", f"{path}/publish")
    api.ask("PUT", path, wanted=[400], json={"config": {}})
    for number, outbound in zip(NUMBERS, (made["id"], None)):
        there = api.ask("GET", f"/core/phone-numbers/{number}")
        slots = there["inbound_agent_version_id"], there["outbound_agent_version_id"]
        assert slots == (made["id"], outbound), there


def deploy(api, agent_id):
    first = api.ask("POST", f"/core/agents/{agent_id}/deploy-as-sip")
    again = api.ask("POST", f"/core/agents/{agent_id}/deploy-as-sip")
    assert first == again and first["deployed"] is True, (first, again)
    assert first["uri"].startswith(f"sip:{agent_id}@"), first
    whole = api.ask("GET", f"/core/agents/{agent_id}")
    assert whole["sip_endpoint"] == first, whole
    assert whole["versions"] and whole["phone_numbers"] and "conversation_stats" in whole


def routing(api, agent_id):
    path = "/core/inbound-routing-config"
    wanted = {"workflow_definition": ROUTING, "fallback_agent_id": agent_id, "enabled": True}
    there = api.ask("GET", path)
    if there is None:
        api.ask("PUT", path, wanted=[404], json=wanted)
        there = api.ask("POST", path, json=wanted)
    elif not same(wanted, there):
        there = api.ask("PUT", path, json=wanted)
    api.ask("POST", path, wanted=[409], json=wanted)
    assert same(wanted, there), there


def refusals(api):
    """What a client may rely on when it errs."""
    unknown = "00000000-0000-4000-8000-000000000000"
    for path in ("trunks", "agents", "conversations"):
        api.ask("GET", f"/core/{path}/{unknown}", wanted=[404])
    api.ask("POST", "/core/trunks", wanted=[422], json={})
    api.ask("POST", "/core/agents", wanted=[422], json={"name": "x", "unknown": 1})
    api.ask("GET", "/core/agents", wanted=[422], params={"limit": 1001})
    api.ask("GET", "/core/agents", wanted=[422], params={"cursor": "%%%"})
    for header in ({}, {"Authorization": "Bearer ak_x.y"}, {"Authorization": "Bearer pat_x"}):
        reply = requests.get(f"{api.url}/core/trunks", headers=header, timeout=30)
        assert reply.status_code == 401 and set(reply.json()) == {"detail"}, reply.text


def state(api, agent_id):
    """What is there now, without what every run changes."""
    moments = ("created_at", "updated_at", "last_used_at")

    def bare(value):
        if isinstance(value, dict):
            return {name: bare(inner) for name, inner in value.items() if name not in moments}
        return [bare(inner) for inner in value] if isinstance(value, list) else value

    return bare({
        "trunks": api.every("/core/trunks"),
        "phone_numbers": api.every("/core/phone-numbers"),
        "agents": api.every("/core/agents"),
        "versions": api.every(f"/core/agents/{agent_id}/versions"),
        "scopes": sorted(api.ask("GET", "/admin/members/me/scopes")),
    })


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True)
    arguments = parser.parse_args()
    api = Api(arguments.url, os.environ["TRUNKLINE_API_KEY"])
    numbers(api, trunk(api))
    agent_id = agent(api)
    publish(api, agent_id, version(api, agent_id))
    deploy(api, agent_id)
    routing(api, agent_id)
    refusals(api)
    print(json.dumps(state(api, agent_id), indent=1, sort_keys=True))


if __name__ == "__main__":
    main()
