//! Trees of organisations, users, members, tokens.

use super::*;
use crate::credential::{Authenticated, Person, Role, Scope, ScopeSet, Unauthenticated, Who};
use crate::ids::{KeyId, UserId};
use crate::limits::{ORGANISATION_DEPTH, USER_TOKENS};
use crate::model::{
    Member, MemberChange, NewMember, NewOrganisation, NewPersonalToken, NewUser,
    OrganisationChange, Page,
};

const OPERATOR: Operator = Operator::by_process();

fn token(expires_at: Option<i64>) -> NewPersonalToken {
    NewPersonalToken { name: "laptop".to_owned(), expires_at }
}

fn named(email: &str, role: Role) -> NewMember {
    NewMember { email: email.parse().unwrap(), name: String::new(), role }
}

fn child(name: &str) -> NewOrganisation {
    NewOrganisation { name: name.to_owned(), ..NewOrganisation::default() }
}

impl Scratch {
    async fn join(&self, org: &Org, email: &str, role: Role) -> Member {
        self.add_member(org, ScopeSet::all(), named(email, role)).await.unwrap()
    }

    /// A token of the user's, and who it says they are.
    async fn person(&self, user: UserId, expires_at: Option<i64>) -> (String, Person) {
        let made = self.create_token_for(&OPERATOR, user, token(expires_at)).await;
        let text = made.unwrap().1.expose().clone();
        let person = self.identify(&text).unwrap();
        (text, person)
    }
}

fn bearer(org: &Org, scopes: &[Scope]) -> Authenticated {
    Authenticated::by_key(KeyId::random(), org.organisation(), ScopeSet::of(scopes))
}

#[tokio::test]
async fn a_token_opens_what_its_user_belongs_to_and_nothing_else() {
    let store = Scratch::new().await;
    let (here, there) = (store.organisation().await, store.organisation().await);
    let elsewhere = store.organisation().await;
    let user = store.join(&here, "ada@example.com", Role::Admin).await.user_id;
    assert_eq!(store.join(&there, "Ada@Example.com", Role::Viewer).await.user_id, user);
    let (text, person) = store.person(user, None).await;
    assert_eq!(person.user(), user);
    for store in [&store.store, &store.again(options()).await] {
        let person = store.identify(&text).unwrap();
        let in_one = store.member_of(&person, here.organisation()).unwrap();
        assert_eq!(in_one.scopes(), Role::Admin.scopes());
        assert!(matches!(in_one.actor().who, Who::User { user: id, .. } if id == user));
        let in_other = store.member_of(&person, there.organisation()).unwrap();
        assert_eq!(in_other.scopes(), Role::Viewer.scopes());
        assert_eq!(store.member_of(&person, elsewhere.organisation()), None);
        let all = store.organisations_of(&person).await.unwrap();
        let roles: Vec<_> = all.iter().map(|one| (one.organization_id, one.role)).collect();
        assert_eq!(all.len(), 2);
        assert!(roles.contains(&(here.organisation(), Role::Admin)));
        assert!(roles.contains(&(there.organisation(), Role::Viewer)));
    }
    assert_eq!(store.authenticate(&text), Err(Unauthenticated), "a token is no key");
}

#[tokio::test]
async fn what_ends_a_token_ends_it_at_once() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    store.join(&org, "root@example.com", Role::Admin).await;
    let user = store.join(&org, "ada@example.com", Role::Admin).await.user_id;
    let (text, person) = store.person(user, None).await;
    let (other, _) = store.person(user, None).await;
    let acting = store.member_of(&person, org.organisation()).unwrap();
    assert_eq!(store.still_good(&acting), Ok(acting));

    let change = MemberChange { role: Some(Role::Viewer), ..MemberChange::default() };
    store.update_member(&org, ScopeSet::all(), user, change).await.unwrap();
    assert_eq!(store.still_good(&acting).unwrap().scopes(), Role::Viewer.scopes());

    store.revoke_token(&person, person.token()).await.unwrap();
    assert_eq!(store.identify(&text), Err(Unauthenticated));
    assert_eq!(store.still_good(&acting), Err(Unauthenticated));
    assert_eq!(store.revoke_token(&person, person.token()).await, Err(not_found(TOKEN)));

    let person = store.identify(&other).unwrap();
    let acting = store.member_of(&person, org.organisation()).unwrap();
    store.remove_member(&org, ScopeSet::all(), user).await.unwrap();
    assert_eq!(store.member_of(&person, org.organisation()), None);
    assert_eq!(store.still_good(&acting), Err(Unauthenticated));
    assert!(store.identify(&other).is_ok(), "they are a user still");
    store.delete_user(&OPERATOR, user).await.unwrap();
    assert_eq!(store.identify(&other), Err(Unauthenticated));
    assert!(store.again(options()).await.identify(&other).is_err());
}

const TOKEN: &str = "Personal access token";

#[tokio::test]
async fn a_token_expires_and_makes_none_that_outlive_it() {
    let store = Scratch::new().await;
    let user = NewUser { email: "ada@example.com".parse().unwrap() };
    let user = store.create_user(&OPERATOR, user).await.unwrap().id;
    let soon = START_US / 1_000 + 60_000;
    let (_, person) = store.person(user, Some(soon)).await;
    let refused = store.create_token(&person, token(Some(soon + 1))).await.unwrap_err();
    assert!(matches!(refused, StoreError::Refused(_)));
    let (made, _) = store.create_token(&person, token(None)).await.unwrap();
    assert_eq!(made.expires_at, Some(soon));
    let (made, _) = store.create_token(&person, token(Some(soon - 1))).await.unwrap();
    assert_eq!(made.expires_at, Some(soon - 1));
    let (_, past) =
        store.create_token_for(&OPERATOR, user, token(Some(START_US / 1_000))).await.unwrap();
    assert_eq!(store.identify(past.expose()), Err(Unauthenticated));
}

#[tokio::test]
async fn tokens_are_nobody_elses_and_their_texts_are_nowhere_on_disk() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let ada = store.join(&org, "ada@example.com", Role::Admin).await.user_id;
    let bob = store.join(&org, "bob@example.com", Role::Admin).await.user_id;
    let ((text, ada), (_, bob)) = (store.person(ada, None).await, store.person(bob, None).await);
    assert_eq!(store.revoke_token(&bob, ada.token()).await, Err(not_found(TOKEN)));
    store.flush_last_used().await.unwrap();
    for store in [&store.store, &store.again(options()).await] {
        let own = store.tokens(&ada, Page::default()).await.unwrap();
        assert_eq!(own.iter().map(|token| token.token_id).collect::<Vec<_>>(), [ada.token()]);
        assert_eq!(own[0].last_used_at, Some(Timestamp::from_micros(START_US)));
    }
    let secret = text.split('.').nth(1).unwrap().as_bytes();
    assert!(!store.bytes().await.windows(secret.len()).any(|window| window == secret));
}

#[tokio::test]
async fn a_user_has_a_bounded_number_of_tokens() {
    let store = Scratch::new().await;
    let user = NewUser { email: "ada@example.com".parse().unwrap() };
    let user = store.create_user(&OPERATOR, user).await.unwrap().id;
    for _ in 0..USER_TOKENS.value_u32() {
        store.create_token_for(&OPERATOR, user, token(None)).await.unwrap();
    }
    let refused = store.create_token_for(&OPERATOR, user, token(None)).await.unwrap_err();
    assert_eq!(refused, StoreError::Refused("Token limit reached".to_owned()));
}

#[tokio::test]
async fn nobody_gives_or_takes_a_role_that_holds_more_than_they_do() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    store.join(&org, "root@example.com", Role::Admin).await;
    let admin = store.join(&org, "ada@example.com", Role::Admin).await.user_id;
    let viewer = store.join(&org, "bob@example.com", Role::Viewer).await.user_id;
    let weak = Role::Viewer.scopes().union(ScopeSet::of(&[Scope::MembersManage]));
    let refused = |result: Result<(), StoreError>| {
        assert!(matches!(result, Err(StoreError::Refused(_))), "{result:?}");
    };
    let role = |role| MemberChange { role: Some(role), ..MemberChange::default() };
    refused(store.add_member(&org, weak, named("eve@example.com", Role::Admin)).await.map(drop));
    refused(store.update_member(&org, weak, viewer, role(Role::Admin)).await.map(drop));
    refused(store.update_member(&org, weak, admin, role(Role::Viewer)).await.map(drop));
    refused(store.remove_member(&org, weak, admin).await);
    store.add_member(&org, weak, named("eve@example.com", Role::Viewer)).await.unwrap();
    store.remove_member(&org, weak, viewer).await.unwrap();
}

#[tokio::test]
async fn the_last_admin_stays() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let first = store.join(&org, "ada@example.com", Role::Admin).await.user_id;
    let conflict = Err(StoreError::Conflict("An organization must keep an admin".to_owned()));
    let viewer = MemberChange { role: Some(Role::Viewer), ..MemberChange::default() };
    let all = ScopeSet::all();
    assert_eq!(store.remove_member(&org, all, first).await, conflict);
    let demoted = store.update_member(&org, all, first, viewer.clone()).await.map(drop);
    assert_eq!(demoted, conflict);
    assert_eq!(store.delete_user(&OPERATOR, first).await, conflict);
    let second = store.join(&org, "bob@example.com", Role::Admin).await.user_id;
    store.update_member(&org, all, first, viewer).await.unwrap();
    assert_eq!(store.remove_member(&org, all, second).await, conflict);
    store.remove_member(&org, all, first).await.unwrap();
}

#[tokio::test]
async fn a_member_is_one_in_every_organisation_and_unknown_to_the_others() {
    let store = Scratch::new().await;
    let (here, there) = (store.organisation().await, store.organisation().await);
    let new = NewMember { name: "Ada".to_owned(), ..named("ada@example.com", Role::Viewer) };
    let member = store.add_member(&here, ScopeSet::all(), new).await.unwrap();
    let again = store.add_member(&here, ScopeSet::all(), named("ADA@example.com", Role::Viewer));
    assert!(matches!(again.await, Err(StoreError::Conflict(_))));
    assert_eq!(store.member(&there, member.user_id).await, Err(not_found("User")));
    let gone = store.remove_member(&there, ScopeSet::all(), member.user_id).await;
    assert_eq!(gone, Err(not_found("User")));
    assert_eq!(store.members(&there, Page::default()).await.unwrap(), []);
    let elsewhere = store.join(&there, "ada@example.com", Role::Viewer).await;
    assert_eq!((elsewhere.user_id, elsewhere.name.as_str()), (member.user_id, ""));
    assert_eq!(store.members(&here, Page::default()).await.unwrap(), [member]);
}

#[tokio::test]
async fn a_user_who_belongs_nowhere_and_has_no_token_is_forgotten() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    store.join(&org, "ada@example.com", Role::Viewer).await;
    let kept = store.join(&org, "bob@example.com", Role::Viewer).await.user_id;
    store.person(kept, None).await;
    for member in store.members(&org, Page::default()).await.unwrap() {
        store.remove_member(&org, ScopeSet::all(), member.user_id).await.unwrap();
    }
    let users = store.users(&OPERATOR, Page::default()).await.unwrap();
    assert_eq!(users.iter().map(|user| user.id).collect::<Vec<_>>(), [kept]);
    let taken = NewUser { email: "bob@example.com".parse().unwrap() };
    assert!(matches!(store.create_user(&OPERATOR, taken).await, Err(StoreError::Conflict(_))));
}

#[tokio::test]
async fn reach_is_downwards_only_and_everywhere_for_the_operator() {
    let store = Scratch::new().await;
    let (root, other) = (store.organisation().await, store.organisation().await);
    let below = store.create_child_organisation(&root, child("below")).await.unwrap();
    let below = OPERATOR.within(below.id);
    let leaf = store.create_child_organisation(&below, child("leaf")).await.unwrap();
    assert_eq!(leaf.parent_id, Some(below.organisation()));
    let leaf = OPERATOR.within(leaf.id);
    let manage = [Scope::ChildOrganizationsManage];
    let unknown = Err(not_found("Organization"));
    let reach = async |from: &Org, scopes: &[Scope], to: &Org| {
        let scope = store.reach(&bearer(from, scopes), to.organisation(), None).await;
        scope.map(|scope| scope.organisation())
    };
    assert_eq!(reach(&root, &manage, &leaf).await, Ok(leaf.organisation()));
    assert_eq!(reach(&root, &manage, &below).await, Ok(below.organisation()));
    assert_eq!(reach(&root, &[], &root).await, Ok(root.organisation()));
    assert_eq!(reach(&root, &[Scope::OrganizationsManage], &leaf).await, unknown);
    for (from, to) in [(&leaf, &below), (&leaf, &root), (&below, &other), (&root, &other)] {
        assert_eq!(reach(from, &manage, to).await, unknown);
    }
    let by = bearer(&other, &[Scope::OperatorManage]);
    let any = store.reach(&by, leaf.organisation(), by.operator_manage()).await;
    assert_eq!(any.unwrap().organisation(), leaf.organisation());
    let nowhere = store.reach(&by, OrganisationId::random(), by.operator_manage()).await;
    assert_eq!(nowhere.map(drop), Err(not_found("Organization")));

    let seen = async |org: &Org, below| {
        let all = store.organisations_from(org, below, Page::default()).await.unwrap();
        all.into_iter().map(|organisation| organisation.id).collect::<Vec<_>>()
    };
    let line = [leaf.organisation(), below.organisation(), root.organisation()];
    assert_eq!(seen(&root, true).await, line);
    assert_eq!(seen(&root, false).await, line[2..]);
    assert_eq!(seen(&leaf, true).await, line[..1]);
    let snapshot = store.snapshot().load();
    let route = snapshot.organisation(leaf.organisation()).unwrap();
    assert_eq!(route.parent_id, Some(below.organisation()));
}

#[tokio::test]
async fn a_child_may_register_as_many_numbers_and_its_maker_is_its_admin() {
    let store = Scratch::new().await;
    let root = store.create_organisation(&OPERATOR, "root", Some(3)).await.unwrap();
    let root = OPERATOR.within(root.id);
    let user = store.join(&root, "ada@example.com", Role::Admin).await.user_id;
    let (_, person) = store.person(user, None).await;
    let ada = store.member_of(&person, root.organisation()).unwrap();
    let made = store.create_child_organisation(&ada.organisation(), child("c")).await.unwrap();
    assert_eq!(made.max_phone_numbers, Some(3));
    let inside = store.member_of(&person, made.id).unwrap();
    assert_eq!(inside.scopes(), Role::Admin.scopes());
    let change =
        OrganisationChange { name: Some("renamed".to_owned()), max_phone_numbers: Some(None) };
    let changed = store.update_organisation(&inside.organisation(), change).await.unwrap();
    assert_eq!((changed.name.as_str(), changed.max_phone_numbers), ("renamed", None));
    assert_eq!(store.store.organisation(&inside.organisation()).await.unwrap(), changed);
    assert_eq!(&*store.snapshot().load().organisation(made.id).unwrap().name, "renamed");
}

#[tokio::test]
async fn trees_have_a_bounded_depth() {
    let store = Scratch::new().await;
    let mut parent = store.organisation().await;
    for _ in 1..ORGANISATION_DEPTH.value_u32() {
        let made = store.create_child_organisation(&parent, child("c")).await.unwrap();
        parent = OPERATOR.within(made.id);
    }
    let refused = store.create_child_organisation(&parent, child("c")).await.unwrap_err();
    assert!(matches!(refused, StoreError::Refused(_)));
}
