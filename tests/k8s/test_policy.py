"""What no schema sees, of every overlay: links between documents, security of pods, traffic, identities, budgets."""

import pytest
from manifests import OVERLAYS, declared_secrets, everything, overlay, pods
from policy_links import components, environment, no_values, selectors, services, used_secrets, volumes
from policy_network import blocks, denied_by_default, differences, endpoints, peers_exist, reachable
from policy_pods import identities, images, namespaces, priorities, probes, restricted, spreads
from policy_values import addresses, budgets, quantities, resources, restarts, schedules
from traffic import ADMIN_PORT, BLOCKS, FIX_PORT, MODELS, NEEDED, ORDER_PORT


@pytest.fixture(params=OVERLAYS)
def name(request):
    return request.param


@pytest.fixture
def documents(name):
    return everything(overlay(name))


@pytest.fixture
def found(documents):
    return pods(documents)


@pytest.fixture
def secrets(name):
    return declared_secrets(name)


def test_pods_are_restricted_with_a_read_only_root(found):
    assert restricted(found) == []


def test_namespaces_enforce_what_pods_keep(documents):
    assert namespaces(documents) == []


def test_images_have_exact_tags(found):
    assert images(found) == []


def test_what_goes_on_has_three_probes_on_ports_of_its_own(found):
    assert probes(found) == []


def test_priorities_put_the_gateway_first(documents, found):
    assert priorities(documents, found) == []


def test_replicas_are_spread(found):
    assert spreads(found) == []


def test_identities_are_there_and_tokens_go_to_rights_alone(documents, found):
    assert identities(documents, found) == []


def test_quantities_parse_and_every_container_has_requests_and_limits(documents, found):
    assert quantities(documents) + resources(found) == []


def test_addresses_and_ports_are_valid(documents):
    assert addresses(documents) == []


def test_schedules_are_valid(documents):
    assert schedules(documents) == []


def test_jobs_end_are_tried_again_and_cleaned_up(documents, found):
    assert restarts(documents, found) == []


def test_budgets_let_nodes_be_drained(documents):
    assert budgets(documents) == []


def test_selectors_take_what_they_mean(documents, found):
    assert selectors(documents, found) + components(found) == []


def test_services_reach_named_ports(documents, found):
    assert services(documents, found) == []


def test_volumes_and_variables_are_in_the_namespace_that_uses_them(documents, found, secrets):
    assert volumes(documents, found, secrets) + environment(documents, found, secrets) == []


def test_no_credential_stands_as_a_value(documents, found):
    assert no_values(documents, found) == []


def test_every_declared_secret_is_read_by_somebody(documents, found, secrets):
    assert used_secrets(documents, found, secrets) == []


def test_everything_is_denied_by_default(documents):
    assert denied_by_default(documents) == []


def test_policies_name_pods_that_are_there(documents, found):
    assert peers_exist(documents, endpoints(found)) == []


def test_every_needed_path_is_open_and_no_other(name, documents, found):
    ends = endpoints(found)
    assert differences(reachable(documents, ends), NEEDED[name]) == []


def test_outside_addresses_are_those_that_the_overlay_opens(name, documents, found):
    assert differences(blocks(documents, endpoints(found)), BLOCKS[name]) == []


def test_only_the_gateway_reaches_the_venue_and_only_parents_the_order_port(documents, found):
    flows = reachable(documents, endpoints(found))
    assert {source for source, _, port in flows if port == FIX_PORT} <= {"gateway"}
    assert {source for source, _, port in flows if port == ORDER_PORT} == {"parents"}


def test_nothing_that_runs_a_model_reaches_the_admin_port(documents, found):
    flows = reachable(documents, endpoints(found))
    assert not {source for source, _, port in flows if port == ADMIN_PORT} & MODELS
